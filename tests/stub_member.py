"""A program: stands for a member's run in tests of sweeps, and leaves a record without computing anything.

actions.json in its working folder says what becomes of a seed: fail, die, leave (as asked to end while it imports),
wait (for Ctrl-C or SIGTERM), save (to go on in another job); else it is complete.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

from forgetmenot.config.child import end_with_parent
from forgetmenot.result import RunResult
from forgetmenot.signals import answer

TOLD = ("LOCAL_RANK", "MASTER_PORT", "WANDB_RUN_GROUP", "WANDB_RUN_ID", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")


def main() -> None:
    """Notes that it was started, and ends as it is told."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    answer()
    end_with_parent()
    words = dict(word.split("=", 1) for word in sys.argv[1:] if "=" in word)
    folder, seed = Path(words["hydra.run.dir"].strip('"')), words.get("seed", "0")
    actions = Path("actions.json")
    action = json.loads(actions.read_text()).get(seed) if actions.is_file() else None
    with Path("started.txt").open("a") as started:
        started.write(f"{seed}\n")
    (folder / "argv.json").write_text(json.dumps(sys.argv[1:]))
    (folder / "environment.json").write_text(json.dumps({name: os.environ.get(name) for name in TOLD}))
    result = RunResult(status="complete", name=folder.name, seed=int(seed))
    result.objective = {"name": "val.accuracy", "value": float(seed), "direction": "max"}
    code = 0
    if action == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if action == "leave":
        sys.exit(143)
    if action == "fail":
        result.status, result.error, code = "failed", "seed must be another", 1
    if action == "save":
        result.status, code = "interrupted", 143
    if action == "wait":
        try:
            time.sleep(60)
        except KeyboardInterrupt:
            result.status, code = "interrupted", 130
    result.write(folder)
    sys.exit(code)


if __name__ == "__main__":
    main()
