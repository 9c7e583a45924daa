"""What a complete run leaves in its folder: the contract of a run, key by key."""

from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf
from tiny_runs import Finished, Train, read_lines, read_result

from forgetmenot.result import RunResult


def test_a_runs_folder_holds_what_the_design_lists(finished_run: Finished) -> None:
    assert {place.name for place in finished_run.folder.iterdir()} == {
        "adapter",
        "config.yaml",
        "metrics.jsonl",
        "predictions",
        "result.json",
        "run.log",
    }
    assert {place.name for place in (finished_run.folder / "predictions").iterdir()} == {"mood.jsonl", "kept.jsonl"}
    assert {"adapter_config.json", "adapter_model.safetensors"} <= {
        place.name for place in (finished_run.folder / "adapter").iterdir()
    }


def test_a_result_has_every_key_of_the_schema(finished_run: Finished) -> None:
    result = read_result(finished_run.folder)
    assert list(result) == [
        "schema_version", "status", "error", "name", "overrides", "seed", "started", "seconds", "model", "hardware",
        "reused", "method", "data", "cost", "tasks", "gain", "gain_ci", "gain_mean", "gain_mean_ci",
        "forgetting", "forgetting_ci", "drift", "objective", "versions", "git_commit",
    ]  # fmt: skip
    assert (result["schema_version"], result["status"], result["error"]) == (1, "complete", None)
    assert result["name"] == finished_run.folder.name
    assert RunResult.read(finished_run.folder).tasks == result["tasks"]


def test_a_result_says_what_a_sweep_judges_the_run_by(finished_run: Finished) -> None:
    *_, last = [line for line in read_lines(finished_run.folder / "metrics.jsonl") if "val/accuracy" in line]
    assert read_result(finished_run.folder)["objective"] == {
        "name": "val.accuracy", "value": last["val/accuracy"], "direction": "max",
    }  # fmt: skip


SECTIONS = {
    "model": {"name": str, "architecture": str, "parameters": int},
    "hardware": {"device": str, "devices": int, "threads": int, "precision": str},
    "method": {
        "name": str, "lr": float, "trainable_parameters": int, "trainable_percent": float, "saved_bytes": int,
    },
    "data": {
        "name": str, "train_examples": int, "validation_examples": int, "test_examples": int, "truncated": int,
        "dropped": int, "replayed_examples": int,
    },
    "cost": {
        "train_seconds": float, "loading_seconds": float, "train_tokens": int, "train_tokens_per_second": float,
        "peak_memory_bytes": int, "evaluate_seconds": float, "prompt_tokens_per_example": float,
    },
}  # fmt: skip


@pytest.mark.parametrize("section", SECTIONS)
def test_a_section_of_a_result_has_its_keys_with_their_types(finished_run: Finished, section: str) -> None:
    facts = read_result(finished_run.folder)[section]
    assert isinstance(facts, dict)
    assert {key: type(value) for key, value in facts.items()} == SECTIONS[section]


def test_a_task_of_a_result_tells_role_metric_and_scores_before_and_after(finished_run: Finished) -> None:
    tasks = read_result(finished_run.folder)["tasks"]
    assert isinstance(tasks, dict)
    keys, kinds = ("rouge1", "rouge2", "rougeL", "rougeLsum"), ("precision", "recall", "fmeasure")
    names = {
        "accuracy",
        "exact_match",
        "token_f1",
        "loss",
        "bits_per_byte",
        *(f"{k}_{kind}" for k in keys for kind in kinds),
    }
    for facts in tasks.values():
        assert (facts["metric"], facts["examples"]) == ("accuracy", 4)
        assert set(facts["before"]) == set(facts["after"]) == names
        assert set(facts["ci"]["before"]) == set(facts["ci"]["after"]) == names
        assert all(isinstance(score, float) for when in ("before", "after") for score in facts[when].values())
    assert tasks["mood"]["role"] == "target" and "counted" not in tasks["mood"]
    assert (tasks["kept"]["role"], tasks["kept"]["counted"], tasks["kept"]["reason"]) == (
        "retained", False, "base cannot do it",
    )  # fmt: skip


def test_gain_and_forgetting_follow_from_the_scores(finished_run: Finished) -> None:
    result = RunResult.read(finished_run.folder)
    assert result.tasks is not None and result.gain is not None and result.forgetting is not None
    mood, kept = result.tasks["mood"], result.tasks["kept"]
    assert result.gain == {"mood": mood["after"]["accuracy"] - mood["before"]["accuracy"]}
    assert result.forgetting["tasks"] == {"kept": kept["before"]["accuracy"] - kept["after"]["accuracy"]}
    assert result.forgetting["mean"] is None, "nothing counted, and that is not 0"


def test_no_number_of_a_result_is_minus_zero(finished_run: Finished) -> None:
    assert "-0.0" not in (finished_run.folder / "result.json").read_text().replace("e-0", "")


def test_predictions_are_in_file_order(finished_run: Finished, tiny_data: Path) -> None:
    records = read_lines(tiny_data / "test.jsonl")
    for task, column in (("mood", "label"), ("kept", "number")):
        lines = read_lines(finished_run.folder / "predictions" / f"{task}.jsonl")
        assert [line["prompt"] for line in lines] == [f"{record['text']}\n" for record in records]
        assert [line["references"] for line in lines] == [[str(record[column])] for record in records]
        assert all(set(line) == {"prompt", "references", "before", "after"} for line in lines)


def test_every_step_stands_once_in_metrics_jsonl(finished_run: Finished) -> None:
    steps = [line["step"] for line in read_lines(finished_run.folder / "metrics.jsonl")]
    assert len(steps) == len(set(steps)) and steps == sorted(steps), steps


def test_metrics_jsonl_has_the_designs_names(finished_run: Finished) -> None:
    names = {name for line in read_lines(finished_run.folder / "metrics.jsonl") for name in line}
    for name in ("train/loss", "val/accuracy", "val/loss", "before/mood/accuracy", "after/kept/loss", "gain/mood",
                 "gain/mood/low", "after/mood/accuracy/high", "before/kept/accuracy/low",
                 "forgetting/kept", "forgetting/kept/high", "drift/kl/kept", "drift/weights",
                 "cost/train_seconds", "cost/peak_memory_bytes"):  # fmt: skip
        assert name in names
    places = {name.split("/")[0] for name in names - {"step"}}
    assert places == {"train", "val", "before", "after", "gain", "forgetting", "drift", "cost"}


def test_every_optimizer_step_logs_its_loss(finished_run: Finished) -> None:
    lines = read_lines(finished_run.folder / "metrics.jsonl")
    assert len([line for line in lines if "train/loss" in line]) == 4


def test_the_rate_that_is_logged_is_the_one_that_the_step_took(train: Train) -> None:
    done = train("schedule=linear", "schedule.warmup=0", "optimizer.lr=0.1")
    rates = [line["train/lr"] for line in read_lines(done.folder / "metrics.jsonl") if "train/lr" in line]
    assert rates == pytest.approx([0.1, 0.075, 0.05, 0.025])


def test_what_a_run_tells_stands_in_its_result(finished_run: Finished) -> None:
    assert "lora on mood" in finished_run.stdout
    assert f"The run lies in {finished_run.folder.relative_to(finished_run.place)}" in finished_run.stdout.replace(
        f"{finished_run.place}/", ""
    )


def test_config_yaml_is_resolved_and_holds_the_retained_task_in_full(finished_run: Finished, tiny_data: Path) -> None:
    config = OmegaConf.load(finished_run.folder / "config.yaml")
    assert isinstance(config, DictConfig)
    text = OmegaConf.to_yaml({key: value for key, value in config.items() if key != "defaults"})
    assert "${" not in text and "???" not in text
    assert isinstance(config.micro_batch_tokens, int)
    (kept,) = config.data.retained
    assert (kept.name, kept.path) == ("kept", str(tiny_data)) and "retained" not in kept
