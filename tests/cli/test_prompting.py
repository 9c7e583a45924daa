"""`method=few_shot` and its kin from end to end: what is scored, what is zero by construction, and what is kept."""

import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
from lightning.pytorch.utilities import rank_zero_only
from tiny_runs import SCORED, Finished, finish, read_lines, read_result

from forgetmenot.cli.prompting import warn_of_idle_settings


@pytest.fixture(scope="module")
def prompted(tmp_path_factory: pytest.TempPathFactory, tiny_arguments: list[str], user_conf: Path) -> Finished:
    """A run with two shots and a retained task."""
    arguments = ["data.retained=[kept]", "method=few_shot", "method.num_shots=2"]
    done = finish(
        ["--config-dir", str(user_conf), *tiny_arguments, *arguments], tmp_path_factory.mktemp("prompted_run")
    )
    assert done.code == 0, done.stderr
    return done


def test_nothing_is_trained_and_the_numbers_say_so(prompted: Finished) -> None:
    result = read_result(prompted.folder)
    text = (prompted.folder / "prompt" / "mood.txt").read_text()
    assert result["method"] == {
        "name": "few_shot", "lr": None, "trainable_parameters": 0, "trainable_percent": 0.0, "saved_bytes": len(text),
    }  # fmt: skip
    cost = result["cost"]
    assert {name for name, value in cost.items() if value is None} == {
        "train_seconds", "loading_seconds", "train_tokens", "train_tokens_per_second", "peak_memory_bytes",
    }  # fmt: skip
    assert "Trained nothing; prompts have" in prompted.stdout


def test_the_target_is_what_evaluate_scores_with_the_same_shots(
    prompted: Finished, tiny_arguments: list[str], finished_run: Finished, tmp_path: Path
) -> None:
    result = read_result(prompted.folder)
    model = next(word.removeprefix("model.path=") for word in tiny_arguments if word.startswith("model.path="))
    data = [word for word in tiny_arguments if word.startswith(("data", "trainer=", "max_length="))]
    plain = finish([f"run={model}", *data, "precision=fp32", "num_shots=2"], tmp_path, command="evaluate")
    assert plain.code == 0, plain.stderr

    expected = read_result(plain.folder)
    assert result["tasks"]["mood"]["after"] == expected["tasks"]["mood"]["before"]
    assert result["tasks"]["mood"]["before"] == read_result(finished_run.folder)["tasks"]["mood"]["before"]
    assert result["cost"]["prompt_tokens_per_example"] == expected["cost"]["prompt_tokens_per_example"]
    answers = [line["before"] for line in read_lines(plain.folder / "predictions" / "mood.jsonl")]
    assert [line["after"] for line in read_lines(prompted.folder / "predictions" / "mood.jsonl")] == answers


def test_retained_tasks_are_zero_by_construction_and_not_run_again(prompted: Finished) -> None:
    result = read_result(prompted.folder)
    kept = result["tasks"]["kept"]
    assert kept["after"] == kept["before"]
    assert result["forgetting"]["tasks"] == {"kept": 0.0}
    assert result["drift"] == {"kl": {"kept": 0.0}, "kl_ci": {"kept": [0.0, 0.0]}, "weights": 0.0}
    assert kept["reason"] in ("zero by construction", "base cannot do it")
    assert kept["counted"] == (kept["reason"] == "zero by construction")
    lines = read_lines(prompted.folder / "predictions" / "kept.jsonl")
    assert [line["after"] for line in lines] == [line["before"] for line in lines]


def test_evaluate_repeats_the_runs_numbers(prompted: Finished, tmp_path: Path) -> None:
    done = finish([f"run={prompted.folder}"], tmp_path, command="evaluate")
    assert done.code == 0, done.stderr
    before, after = read_result(prompted.folder), read_result(done.folder)
    for key in SCORED:
        assert after[key] == before[key], key
    assert after["cost"]["prompt_tokens_per_example"] == before["cost"]["prompt_tokens_per_example"]


def test_on_another_task_a_run_with_shots_is_its_base(prompted: Finished, user_conf: Path, tmp_path: Path) -> None:
    arguments = ["--config-dir", str(user_conf), f"run={prompted.folder}", "data=kept", "data.retained=[]"]
    done = finish(arguments, tmp_path, command="evaluate")
    assert done.code == 0, done.stderr
    assert read_result(done.folder)["gain"] == {"kept": 0.0}


def test_ask_puts_the_shots_before_the_prompt(prompted: Finished, tmp_path: Path) -> None:
    line = read_lines(prompted.folder / "predictions" / "mood.jsonl")[0]
    done = finish([f"run={prompted.folder}", f"prompt={line['prompt'].strip()}"], tmp_path, command="ask")
    assert done.code == 0, done.stderr
    rows = {row.split("│")[1].strip(): row.split("│")[2] for row in done.stdout.splitlines() if "│" in row}
    assert rows["causal"].strip() == line["before"].strip()
    assert rows["few_shot on mood"].strip() == line["after"].strip()


def test_runs_with_shots_are_judged_by_validation_examples_with_shots(
    tmp_path: Path, tiny_arguments: list[str]
) -> None:
    folders = []
    for shots in (0, 2):
        chosen = ["objective=val.loss", "method=zero_shot", f"method.num_shots={shots}", f"hydra.run.dir={shots}"]
        done = finish([*tiny_arguments, *chosen], tmp_path)
        assert done.code == 0, done.stderr
        folders.append(tmp_path / str(shots))

    objectives = [read_result(folder)["objective"]["value"] for folder in folders]  # type: ignore[index]
    assert len(set(objectives)) == 2
    logged = [read_lines(folder / "metrics.jsonl")[-1] for folder in folders]
    assert [line["val/loss"] for line in logged] == objectives
    assert logged[0]["gain/mood"] == 0.0 and logged[0]["before/mood/loss"] == logged[0]["after/mood/loss"]
    assert logged[1]["before/mood/loss"] != logged[1]["after/mood/loss"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["method.num_shots=17"], "method.num_shots must be at least 0 and at most the 16 training examples of mood"),
        (["method.num_shots=16"], "which cuts every one of them; fewer method.num_shots need less"),
        (["method.lr=0.1"], "method.lr must be null for a method that trains nothing, got 0.1"),
    ],
)
def test_a_mistake_is_told_in_a_sentence(
    tmp_path: Path, tiny_arguments: list[str], arguments: list[str], sentence: str
) -> None:
    done = finish([*tiny_arguments, "method=few_shot", *arguments], tmp_path)
    assert done.code == 1
    assert sentence in done.sentence


@pytest.mark.filterwarnings("default:.* effect")
def test_settings_of_training_are_without_effect_and_named_in_the_log(
    tmp_path: Path, tiny_arguments: list[str]
) -> None:
    idle = ["select=best", "patience=2", "max_steps=3", "regularizer=l2_sp", "replay=mixed", "optimizer.lr=0.1"]
    done = finish([*tiny_arguments, "method=zero_shot", *idle], tmp_path)
    assert done.code == 0, done.stderr
    log = (done.folder / "run.log").read_text()
    assert "optimizer.lr has no effect: zero_shot trains nothing" in log
    assert "trains nothing: select, patience, max_steps, regularizer.l2_sp, replay; method=lora takes them" in log


@pytest.mark.filterwarnings("default:.* effect")
@pytest.mark.parametrize("name", ["zero_shot", "one_shot"])
def test_a_run_that_trains_nothing_names_all_penalties_and_replay_once_and_checks_none(
    tmp_path: Path, tiny_arguments: list[str], name: str
) -> None:
    idle = ["regularizer=[l2_sp,ewc,kl]", "regularizer.ewc.source=retained", "replay=mixed"]
    done = finish([*tiny_arguments, f"method={name}", *idle], tmp_path)
    assert done.code == 0, done.stderr

    told = "regularizer.l2_sp, regularizer.ewc, regularizer.kl, replay; method=lora takes them"
    log = (done.folder / "run.log").read_text()
    assert log.count("settings without effect") == 1
    assert f"settings without effect, since {name} trains nothing: {told}" in log


@pytest.mark.parametrize(("rank", "times"), [(0, 1), (1, 0)])
def test_of_several_ranks_one_warns(rank: int, times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_zero_only, "rank", rank)
    setup = SimpleNamespace(
        settings=SimpleNamespace(select="best", patience=None, max_steps=None), regularizers=(), replay=None,
        method=SimpleNamespace(name="zero_shot"),
    )  # fmt: skip
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        warn_of_idle_settings(setup)
    assert len(told) == times


def test_prompts_that_are_cut_with_their_shots_are_told_with_the_length_that_holds_them(
    tmp_path: Path, tiny_arguments: list[str], tiny_data: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for file in tiny_data.iterdir():
        (data / file.name).write_bytes(file.read_bytes())
    first, *rest = (data / "test.jsonl").read_text().splitlines()
    (data / "test.jsonl").write_text("\n".join([first.replace("fine", "very " * 15), *rest]) + "\n")
    arguments = [*tiny_arguments, f"data.path={data}", "method=one_shot"]
    done = finish(arguments, tmp_path)
    assert done.code == 0, done.stderr
    assert "1 of 4 prompts of mood are longer than max_length=64 allows and were cut; " in done.stdout
    needed = int(done.stdout.split("were cut; ")[1].split()[0])

    again = [finish([*arguments, f"max_length={needed - less}"], tmp_path) for less in (0, 1)]
    assert [(done.code, "were cut" in done.stdout) for done in again] == [(0, False), (0, True)]
