"""Several targets from end to end: mixed, logged and scored each by itself."""

from pathlib import Path

import pytest
from tiny_runs import Finished, finish, read_lines, read_result

BOTH = ["data=multitask", "data.tasks=[mood,kept]", "data.retained=[kept]"]


def _alone(arguments: list[str], user_conf: Path) -> list[str]:
    """Returns the tiny arguments without the one data set that they describe."""
    return ["--config-dir", str(user_conf), *(word for word in arguments if not word.startswith("data"))]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, tiny_arguments: list[str], user_conf: Path) -> Finished:
    """A complete run on two targets, of which one would be retained as well."""
    arguments = [*_alone(tiny_arguments, user_conf), *BOTH, "data.mixing=weighted", "data.weights=[3,1]", "select=best"]
    done = finish([*arguments, "method.rank=2", "objective=after.mean"], tmp_path_factory.mktemp("both"))
    assert done.code == 0, done.stderr
    return done


def test_every_target_has_its_gain_and_none_is_retained(both: Finished) -> None:
    result = read_result(both.folder)
    assert {name: task["role"] for name, task in result["tasks"].items()} == {"mood": "target", "kept": "target"}  # type: ignore[attr-defined]
    assert set(result["gain"]) == set(result["gain_ci"]) == {"mood", "kept"}  # type: ignore[call-overload]
    assert result["forgetting"] == {"tasks": {}, "mean": None}


def test_the_mean_gain_is_written_and_logged_with_its_interval(both: Finished) -> None:
    result = read_result(both.folder)
    (line,) = (line for line in read_lines(both.folder / "metrics.jsonl") if "gain/mean" in line)
    low, high = result["gain_mean_ci"]  # type: ignore[misc]
    assert low <= result["gain_mean"] <= high  # type: ignore[operator]
    assert [line[f"gain/mean{end}"] for end in ("", "/low", "/high")] == [result["gain_mean"], low, high]


def test_the_data_section_is_of_all_targets_and_tells_their_shares(both: Finished) -> None:
    data = read_result(both.folder)["data"]
    assert isinstance(data, dict)
    assert (data["name"], data["train_examples"], data["replayed_examples"]) == ("multitask", 32, 0)
    assert {name: share["examples"] for name, share in data["mixture"].items()} == {"mood": 0.75, "kept": 0.25}
    assert sum(share["tokens"] for share in data["mixture"].values()) == pytest.approx(1)


def test_losses_and_scores_are_logged_task_by_task(both: Finished) -> None:
    lines = read_lines(both.folder / "metrics.jsonl")
    losses = [line for line in lines if "train/loss" in line]
    assert len(losses) == 8, "32 examples, 4 a step"
    of_tasks = [{key: line[key] for key in ("train/mood/loss", "train/kept/loss") if key in line} for line in losses]
    assert set().union(*of_tasks) == {"train/mood/loss", "train/kept/loss"}
    assert all(told and None not in told.values() for told in of_tasks), "a step tells the loss of what it has"
    assert "train/replayed_tokens" not in losses[0]
    (scored,) = (line for line in lines if "val/mean" in line)
    mean = (scored["val/mood/accuracy"] + scored["val/kept/accuracy"]) / 2  # type: ignore[operator]
    assert scored["val/mean"] == pytest.approx(mean)
    assert "val/accuracy" not in scored


def test_the_table_lists_each_target_and_their_mean(both: Finished) -> None:
    assert "lora on multitask" in both.stdout
    assert all(word in both.stdout for word in ("mood", "kept", "mean gain"))


def test_a_run_on_several_targets_is_evaluated_and_asked_as_any_other(both: Finished, tmp_path: Path) -> None:
    again = finish([f"run={both.folder}", "trainer=cpu"], tmp_path, command="evaluate")
    assert again.code == 0, again.stderr
    first, second = read_result(both.folder), read_result(again.folder)
    assert first["gain"] == second["gain"]
    asked = finish([f"run={both.folder}", "prompt=a film"], tmp_path, command="ask")
    assert asked.code == 0 and "lora on multitask" in asked.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data.tasks=[]"], "data.tasks must name at least one data set, such as [sentiment, names], got none"),
        (["data.tasks=[mood,mood]"], "data.tasks must be data sets of different names"),
        (["data.tasks=[mod]"], "data.tasks must name data sets"),
        (["data.tasks=mood"], "data.tasks must be a list such as [mood], got mood"),
        (["data.tasks=[multitask]"], "data.tasks must be single data sets, got multitask"),
        (["data.mixing=weighted", "data.weights=[1]"], "data.weights must be one for each of the 2 data.tasks, got 1"),
        (["data.mixing=capped"], "data.cap must be given where mixing is capped, got null"),
        (["objective=val.accuracy"], "objective must be gain, forgetting.mean, val.mean or <task>.<metric>"),
    ],
)
def test_a_mistake_is_one_sentence(
    tiny_arguments: list[str], user_conf: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    done = finish([*_alone(tiny_arguments, user_conf), *BOTH, *arguments], tmp_path)
    assert done.code == 1
    assert message in done.sentence
