"""`train` from end to end: its numbers can be repeated, sweeps, and every way out leaves an honest record."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file
from tiny_runs import Finished, Train, finish, read_lines, read_result

from forgetmenot.data.encode import Encoder
from forgetmenot.data.rows import EncodedSplit
from forgetmenot.data.types import Example
from forgetmenot.module import AdaptationModule

Facts = dict[str, object]


def _numbers(result: Facts) -> Facts:
    """Returns what a repetition has to meet exactly: everything but times, memory and names."""
    kept = {key: result[key] for key in ("seed", "model", "method", "data", "tasks", "gain", "forgetting")}
    cost = result["cost"]
    assert isinstance(cost, dict)
    return {**kept, "train_tokens": cost["train_tokens"], "prompt_tokens": cost["prompt_tokens_per_example"]}


def _stepping(monkeypatch: pytest.MonkeyPatch, at: int, action: Callable[[], None]) -> None:
    """Has `action` happen in the training step `at`, counted from 0."""
    original = AdaptationModule.training_step

    def step(self: AdaptationModule, batch: object, index: int) -> None:
        if self.global_step == at:
            action()
        original(self, batch, index)  # type: ignore[arg-type]

    monkeypatch.setattr(AdaptationModule, "training_step", step)


def _interrupt() -> None:
    raise KeyboardInterrupt


def test_a_run_is_repeated_from_its_config_yaml_with_the_same_numbers(finished_run: Finished, tmp_path: Path) -> None:
    again = finish(["--config-dir", str(finished_run.folder), "--config-name", "config"], tmp_path)
    assert again.code == 0, again.stderr
    assert _numbers(read_result(again.folder)) == _numbers(read_result(finished_run.folder))
    assert (again.folder / "config.yaml").read_text() == (finished_run.folder / "config.yaml").read_text()
    for task in ("mood", "kept"):
        name = f"predictions/{task}.jsonl"
        assert (again.folder / name).read_text() == (finished_run.folder / name).read_text()


@pytest.mark.slow
def test_another_seed_gives_other_numbers(finished_run: Finished, tmp_path: Path) -> None:
    other = finish(["--config-dir", str(finished_run.folder), "--config-name", "config", "seed=1"], tmp_path)
    first, second = read_result(finished_run.folder), read_result(other.folder)
    assert first["tasks"]["mood"]["after"]["loss"] != second["tasks"]["mood"]["after"]["loss"]  # type: ignore[index]


def test_regularized_is_full_fine_tuning_with_l2_sp_and_saves_a_whole_model(train: Train) -> None:
    done = train("method=regularized", "max_steps=2")
    result, config = read_result(done.folder), OmegaConf.load(done.folder / "config.yaml")
    assert result["method"]["name"] == "regularized" and result["method"]["trainable_percent"] == 100  # type: ignore[index]
    assert list(config.regularizer) == ["l2_sp"]
    assert (done.folder / "model" / "model.safetensors").is_file() and not (done.folder / "adapter").exists()


@pytest.mark.slow
def test_a_strong_l2_sp_keeps_the_weights_nearer_to_their_start(train: Train, tmp_path: Path) -> None:
    losses = []
    for choice in ("regularizer=[]", "regularizer=l2_sp"):
        weight = ["regularizer.l2_sp.weight=1000"] if choice.endswith("l2_sp") else []
        done = train("method=full", choice, *weight, "optimizer.lr=0.01", "schedule=constant", "seed=3")
        assert done.code == 0, done.stderr
        result = read_result(max(done.folders, key=lambda folder: folder.stat().st_mtime_ns))
        losses.append(result["tasks"]["mood"]["after"]["loss"])  # type: ignore[index]
    assert losses[0] < losses[1], "held weights learn less"


def test_rows_are_encoded_once_and_by_a_later_run_not_at_all_unless_its_template_is_another(
    tmp_path: Path, tiny_arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[int] = []
    original = Encoder._encoded

    def counting(self: Encoder, examples: Sequence[Example], **named: object) -> EncodedSplit:
        encoded.append(len(examples))
        return original(self, examples, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Encoder, "_encoded", counting)
    monkeypatch.setenv("FORGETMENOT_CACHE", str(tmp_path / "cache"))
    once = [*tiny_arguments, "max_steps=1"]

    assert finish([*once, "method.rank=2"], tmp_path).code == 0
    assert encoded == [16, 4, 4], "the splits"
    assert finish([*once, "method.rank=4", "seed=1"], tmp_path).code == 0
    assert len(encoded) == 3
    assert finish([*once, "data.prompt=number"], tmp_path).code == 0
    assert len(encoded) == 6


def test_ctrl_c_while_training_is_recorded_as_interrupted_and_exits_with_130(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    _stepping(monkeypatch, 2, _interrupt)
    done = train()
    result = read_result(done.folder)
    assert done.code == 130
    assert (result["status"], result["error"], result["gain"]) == ("interrupted", None, None)
    assert result["cost"]["train_tokens"] > 0 and result["cost"]["peak_memory_bytes"] > 0  # type: ignore[index]
    assert result["tasks"]["mood"]["before"]["loss"] > 0 and result["tasks"]["mood"]["after"] is None  # type: ignore[index]
    assert "Traceback" not in done.stderr
    steps = [line["step"] for line in read_lines(done.folder / "metrics.jsonl")]
    assert steps == [0, 1], "what was logged before is written"


def test_a_loss_that_is_no_number_fails_with_a_way_out_and_no_nan(train: Train) -> None:
    done = train("optimizer.lr=1e30", "optimizer.clip_norm=null", "schedule=constant")
    result = read_result(done.folder)
    assert done.code == 1 and result["status"] == "failed"
    assert "the loss and its penalties must stay finite numbers" in str(result["error"]) and "optimizer.lr" in str(
        result["error"]
    )
    assert result["gain"] is None
    assert "NaN" not in (done.folder / "metrics.jsonl").read_text()


def test_a_run_whose_scores_are_no_numbers_writes_no_nan(train: Train) -> None:
    done = train(
        "optimizer.lr=1e30", "optimizer.clip_norm=null", "schedule=constant", "max_steps=1", "data.metric=loss"
    )
    result = read_result(done.folder)
    assert result["status"] in ("complete", "failed")
    for line in (done.folder / "metrics.jsonl").read_text().splitlines():
        assert "NaN" not in line and "Infinity" not in line
        json.loads(line)


def test_a_bug_of_ours_keeps_its_traceback_and_fails_the_run(
    train: Train, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def stumble() -> None:
        raise ZeroDivisionError("our own bug")

    _stepping(monkeypatch, 0, stumble)
    with pytest.raises(ZeroDivisionError):
        train()
    (folder,) = (tmp_path / "outputs" / "runs").glob("*/*")
    result = read_result(folder)
    assert (result["status"], result["error"]) == ("failed", "our own bug")


def test_select_best_with_patience_stops_early_and_takes_the_best_weights(train: Train) -> None:
    done = train("select=best", "patience=2", "epochs=20", "data.metric=loss", "data.completion=number", "method=full",
                 "optimizer.lr=0.05", "schedule=constant", "schedule.warmup=0")  # fmt: skip
    assert done.code == 0, done.stderr
    epochs = [line["val/loss"] for line in read_lines(done.folder / "metrics.jsonl") if "val/loss" in line]
    assert len(epochs) < 20, "it stopped early"
    assert epochs.index(min(epochs)) < len(epochs) - 1, "the last epoch is not the best"
    checkpoint = torch.load(next((done.folder / "checkpoints").glob("best*.ckpt")), weights_only=True)
    assert checkpoint["micro_batch_tokens"] == OmegaConf.load(done.folder / "config.yaml").micro_batch_tokens
    saved = load_file(done.folder / "model" / "model.safetensors")
    best = {name.removeprefix("model."): tensor for name, tensor in checkpoint["state_dict"].items()}
    assert all(torch.equal(saved[name], best[name]) for name in saved), "the best weights are kept"


def test_replay_takes_its_share_of_every_step_and_is_told(
    tmp_path: Path, tiny_arguments: list[str], user_conf: Path
) -> None:
    done = finish(["--config-dir", str(user_conf), *tiny_arguments, "data.retained=[kept]", "replay=mixed"], tmp_path)
    assert done.code == 0, done.stderr
    steps = [line for line in read_lines(done.folder / "metrics.jsonl") if "train/loss" in line]
    assert len(steps) == 6, "16 examples of the target, 3 a step"
    assert all(step["train/kept/loss"] > 0 and step["train/mood/loss"] > 0 for step in steps)  # type: ignore[operator]
    assert all(0 < step["train/replayed_tokens"] < step["train/tokens"] for step in steps)  # type: ignore[operator]
    assert read_result(done.folder)["data"]["replayed_examples"] == 6  # type: ignore[index]


def test_a_base_that_cannot_learn_to_end_its_answers_says_so(train: Train, tiny_model: Path, tmp_path: Path) -> None:
    unmet = shutil.copytree(tiny_model, tmp_path / "unmet")
    weights = load_file(unmet / "model.safetensors")
    weights["model.embed_tokens.weight"][[2, 200, 201]] = weights["model.embed_tokens.weight"][2].clone()
    save_file(weights, unmet / "model.safetensors", metadata={"format": "pt"})
    told = "Answers cannot learn to end: the output head of causal has one row for <eos> and 2 other tokens, and lora"
    assert told in train(f"model.path={unmet}", "method=lora", "max_steps=1").stdout
    assert "cannot learn" not in train(f"model.path={unmet}", "method=full", "max_steps=1").stdout


def test_what_another_job_of_slurms_left_in_the_working_folder_is_not_gone_on_with(
    train: Train, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in {
        "NTASKS": "1", "NTASKS_PER_NODE": "1", "JOB_ID": "1", "JOB_NAME": "train", "PROCID": "0", "LOCALID": "0",
        "NODEID": "0", "NNODES": "1",
    }.items():  # fmt: skip
        monkeypatch.setenv(f"SLURM_{name}", value)
    (tmp_path / "hpc_ckpt_1.ckpt").write_text("Lightning's own name, of another project")
    done = train("max_steps=1")
    assert (done.code, read_result(done.folder)["status"]) == (0, "complete"), done.stderr


def test_a_profiler_of_lightnings_finds_a_place_for_what_it_writes(train: Train) -> None:
    done = train("max_steps=1", "+trainer.profiler=pytorch")
    assert done.code == 0, done.stderr
    assert list(done.place.glob("*.pt.trace.json"))
