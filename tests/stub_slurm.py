"""A program: stands for Slurm's commands in tests of sweeps, by the name that it is called by.

sbatch runs all jobs of an array at once, before it answers, and squeue tells how they ended. What is asked for lies
in the folder STUB_SLURM: calls.jsonl, the script, and states.json, in which a test may say how jobs are instead.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

JOB = "7"


def main() -> int:
    """Answers one command."""
    name, words, place = Path(sys.argv[0]).name, sys.argv[1:], Path(os.environ["STUB_SLURM"])
    with (place / "calls.jsonl").open("a") as calls:
        calls.write(json.dumps([name, *words]) + "\n")
    return {"sbatch": _sbatch, "squeue": _squeue, "srun": _srun}.get(name, _nothing)(words, place)


def _sbatch(words: list[str], place: Path) -> int:
    (place / "script").write_text(sys.stdin.read())
    if (place / "refused").is_file():
        print((place / "refused").read_text(), file=sys.stderr)
        return 1
    (array,) = [word.partition("=")[2].partition("%")[0] for word in words if word.startswith("--array=")]
    states = {}
    for number in array.split(","):
        own = {"SLURM_ARRAY_JOB_ID": JOB, "SLURM_ARRAY_TASK_ID": number}
        given = {**os.environ, "SLURM_CPUS_ON_NODE": "4", "SLURM_NTASKS_PER_NODE": "2", **own}
        code = subprocess.run(["bash", str(place / "script")], env=given, check=False).returncode
        states[number] = "FAILED" if code else "COMPLETED"
    told = place / "states.json"
    told.write_text(json.dumps({**states, **(json.loads(told.read_text()) if told.is_file() else {})}))
    print(f"{JOB};one")
    return 0


def _squeue(words: list[str], place: Path) -> int:
    """Tells the states; of a list of them the first, which it takes away where another one is left.

    A state may have a reason to wait behind it.
    """
    if "--states=all" not in words:
        left = (place / "left").read_text() if (place / "left").is_file() else ""
        print(left)
        return 1 if left == "silent" else 0
    states = json.loads((place / "states.json").read_text())
    now = {number: state.pop(0) if len(state) > 1 else state[0] for number, state in _listed(states).items()}
    (place / "states.json").write_text(json.dumps(states))
    print("6 0 RUNNING None")  # of another sweep
    for number, state in now.items():
        if state != "forgotten":
            print(JOB, number, *(state.split() if " " in state else (state, "None")))
    return 1 if "silent" in now.values() else 0


def _listed(states: dict[str, str | list[str]]) -> dict[str, list[str]]:
    return {number: state if isinstance(state, list) else [state] for number, state in states.items()}


def _srun(words: list[str], place: Path) -> int:
    command = [word for word in words if not word.startswith(("--wait=", "--cpus-per-task="))]
    return subprocess.run(command, check=False).returncode


def _nothing(words: list[str], place: Path) -> int:
    return 0


if __name__ == "__main__":
    sys.exit(main())
