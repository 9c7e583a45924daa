"""`sequence`: stages one on the other, and what cannot be one refused before anything is trained."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_runs import read_result

from forgetmenot.cli.sequence import main

COMMAND = (sys.executable, "-m", "forgetmenot.cli.main", "sequence")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["method=lora"], r"data must be a list of different data sets such as \[sentiment,party\], got none"),
        (["data=sentiment"], r"data must be a list .* got data=sentiment"),
        (["data=[sentiment,sentiment]"], r"data must be a list of different data sets"),
        (["data=[sentiment,party]", "-m"], r"sequence must be one run after another in a folder of its own, got -m"),
        (["data=[sentiment,party]", "hydra.mode=MULTIRUN"], r"sequence must be one run .*got hydra.mode=MULTIRUN"),
        (["data=[sentiment,party]", "experiment=forgetting"], r"sequence must be one run .*got experiment=forgetting"),
        (["data=[sentiment,party]", "sweep=rank"], r"sequence must be one run .*got sweep=rank"),
        (["data=[sentiment,party]", "resume=outputs/mine"], r"sequence must be one run .*got resume=outputs/mine"),
        (["data=[sentiment,party]", "method=prompt"], r"method must be one that can be merged into its base, got prom"),
        (["data=[sentiment,party]", "method=lroa"], r"method must be one of .*did you mean method=lora"),
        (["data=[sentiment,nonsense]", "method=lora"], r"data must be one of .*got nonsense"),
        (["data=[sentiment,multitask]", "method=lora"], r"data must be a list of single data sets, got multitask"),
        (["data=[sentiment,local]", "method=lora"], r"data.path must be given, .* \(stage 2, data=local\)"),
        (["data=[sentiment,party]", "method=lora", "data.name=x"], r"data.name must be another in each stage, got x"),
        (["data=[sentiment,party]", "max_length=9", "data.retained=[]"], r"max_length must .* \(stage 1, data=sent"),
        (["data=[sentiment,sst2]", "data.path=gone", "data.retained=[]"], r"data.path must .* gone.*\(stage 1, data=s"),
    ],
)
def test_a_mistake_is_told_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=sentence):
        main(arguments)
    assert list(tmp_path.iterdir()) == []


def test_an_earlier_target_that_a_stage_retains_from_elsewhere_is_told_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_data: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own" / "data").mkdir(parents=True)
    (tmp_path / "own" / "data" / "mine.yaml").write_text(
        f"defaults: [local, _self_]\nname: party\npath: {tiny_data}\nprompt: text\ncompletion: label\nretained: []\n"
    )
    sentence = r"data\.retained must be data sets of different names.*party twice \(stage 2, data=sentiment\)"
    with pytest.raises(ValueError, match=sentence):
        main(["--config-dir", "own", "data=[mine,sentiment]", "method=lora"])
    assert [path.name for path in tmp_path.iterdir()] == ["own"]


def run(arguments: list[str], *, place: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], cwd=place, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_each_stage_is_a_run_on_the_one_before_and_the_matrix_is_theirs(
    tmp_path: Path, tiny_arguments: list[str], tiny_data: Path
) -> None:
    (tmp_path / "conf" / "data").mkdir(parents=True)
    for name, columns in (("mood", ("text", "label")), ("kept", ("text", "number"))):
        (tmp_path / "conf" / "data" / f"{name}.yaml").write_text(
            f"defaults: [local, _self_]\nname: {name}\npath: {tiny_data}\nprompt: {columns[0]}\n"
            f"completion: {columns[1]}\nmax_new_tokens: 2\nretained: []\n"
        )
    words = [word for word in tiny_arguments if not word.startswith("data")]
    options = ["--config-dir", "conf", "data=[mood,kept]", "method=lora", "max_steps=2"]

    done = run([*words, *options], place=tmp_path)

    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "outputs" / "sequences").glob("*/*")
    first, second = (read_result(folder / name)["tasks"] for name in ("0_mood", "1_kept"))
    assert second["mood"]["before"] == pytest.approx(first["mood"]["after"], rel=1e-5)
    written = json.loads((folder / "sequence.json").read_text())
    assert written["tasks"] == ["mood", "kept"]
    assert written["scores"][1][0] == first["mood"]["after"]["accuracy"]
    assert written["scores"][2] == [second[name]["after"]["accuracy"] for name in ("mood", "kept")]
    assert "stage 2 of 2: kept" in done.stdout and "Average accuracy" in done.stdout


@pytest.mark.slow
def test_a_stage_that_fails_ends_the_sequence_in_one_sentence(tmp_path: Path, tiny_arguments: list[str]) -> None:
    words = [word for word in tiny_arguments if not word.startswith("data")]
    done = run([*words, "data=[sentiment,party]", "method=full", "optimizer.lr=1e38"], place=tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: data must be data sets that train ends well on, got exit")


@pytest.mark.slow
def test_a_signal_ends_the_stage_and_starts_no_other(tmp_path: Path, tiny_arguments: list[str]) -> None:
    words = [word for word in tiny_arguments if not word.startswith("data")]
    command = [*COMMAND, *words, "data=[sentiment,party]", "method=lora", "epochs=1000"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    deadline = time.monotonic() + 240
    while not list(tmp_path.rglob("metrics.jsonl")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.terminate()
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM, output
    assert "Traceback" not in output
    (stage,) = tmp_path.glob("outputs/sequences/*/*/*_*")
    assert read_result(stage)["status"] == "interrupted"
