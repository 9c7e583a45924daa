"""One task after another: a finished run is the base of the next, and what it was tuned for is retained."""

import os
import shutil
from pathlib import Path

import pytest
from hydra import initialize_config_dir
from omegaconf import OmegaConf
from tiny_models import model_at
from tiny_runs import Finished, finish, read_result

from forgetmenot import base_scores, cache_room
from forgetmenot.cli import base
from forgetmenot.config.paths import cache_folder, conf_folder, register_resolvers


@pytest.fixture(scope="module")
def second(
    finished_run: Finished, tmp_path_factory: pytest.TempPathFactory, tiny_arguments: list[str], user_conf: Path
) -> Finished:
    """A run on `kept` over the finished run on `mood`."""
    return _over(finished_run.folder, "data=kept", "data.retained=[]", place=tmp_path_factory.mktemp("second"),
                 words=tiny_arguments, conf=user_conf)  # fmt: skip


def _over(folder: Path, *arguments: str, place: Path, words: list[str], conf: Path) -> Finished:
    kept = [word for word in words if not word.startswith(("data", "model.path="))]
    done = finish(
        ["--config-dir", str(conf), *kept, f"model.path={folder}", "max_steps=2", "method.rank=2", *arguments], place
    )
    assert done.code == 0, done.stderr
    return done


def test_its_base_is_what_the_run_before_came_to(finished_run: Finished, second: Finished) -> None:
    came_to, starts_as = (read_result(done.folder)["tasks"] for done in (finished_run, second))
    for task in ("mood", "kept"):
        assert starts_as[task]["before"] == pytest.approx(came_to[task]["after"], rel=1e-5)
    assert [(name, task["role"]) for name, task in starts_as.items()] == [("kept", "target"), ("mood", "retained")]


def test_the_earlier_target_is_written_out_and_the_runs_path_stays(finished_run: Finished, second: Finished) -> None:
    config, before = (OmegaConf.load(done.folder / "config.yaml") for done in (second, finished_run))
    assert config.model.path == str(finished_run.folder)
    (retained,) = config.data.retained
    before.data.pop("retained")
    assert retained == before.data


def test_evaluate_and_export_find_the_base_again(second: Finished, tmp_path: Path) -> None:
    done = finish([f"run={second.folder}"], tmp_path, command="evaluate")
    assert done.code == 0, done.stderr
    assert read_result(done.folder)["tasks"] == read_result(second.folder)["tasks"]
    assert finish([f"run={second.folder}", "to=plain"], tmp_path, command="export").code == 0


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("method.rank=0", "method.rank must be"),
        ("method.rank=9999", "method.rank must be"),
        ("max_length=9", "max_length must"),
        ("method.target_modules=[nothing]", "method.target_modules must"),
    ],
)
def test_what_cannot_be_is_refused_before_a_run_is_merged_into_its_base(
    finished_run: Finished, tmp_path: Path, tiny_arguments: list[str], monkeypatch: pytest.MonkeyPatch, word: str,
    sentence: str,
) -> None:  # fmt: skip
    monkeypatch.setenv("FORGETMENOT_CACHE", str(tmp_path / "cache"))
    done = finish([*tiny_arguments, f"model.path={finished_run.folder}", word], tmp_path)
    assert done.code == 1 and done.sentence.startswith(f"error: {sentence}")
    assert not (tmp_path / "cache" / "merged").exists()


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_run_that_began_with_random_weights_is_a_base(
    tiny_model: Path, tmp_path: Path, tiny_arguments: list[str], method: str
) -> None:
    shape = shutil.copytree(tiny_model, tmp_path / "shape", ignore=shutil.ignore_patterns("*.safetensors"))
    words = [*tiny_arguments, "max_steps=1"]
    first = finish([*words, f"model.path={shape}", "model.weights=random", f"method={method}"], tmp_path)
    assert first.code == 0, first.stderr
    second = finish([*words, f"model.path={first.folder}", "method=lora", "hydra.run.dir=second"], tmp_path)
    assert second.code == 0, second.stderr


def test_a_run_that_saved_a_whole_model_needs_no_base_any_more(
    tiny_model: Path, tmp_path: Path, tiny_arguments: list[str]
) -> None:
    base = shutil.copytree(tiny_model, tmp_path / "base")
    words = [*tiny_arguments, "max_steps=1"]
    first = finish([*words, f"model.path={base}", "method=full"], tmp_path)
    assert first.code == 0, first.stderr
    shutil.rmtree(base)
    second = finish([*words, f"model.path={first.folder}", "method=lora", "hydra.run.dir=second"], tmp_path)
    assert second.code == 0, second.stderr


def test_a_plan_over_a_run_that_failed_is_refused_as_the_run_would_be(
    finished_run: Finished, tmp_path: Path, tiny_arguments: list[str]
) -> None:
    run = shutil.copytree(finished_run.folder, tmp_path / "run")
    record = run / "result.json"
    record.write_text(record.read_text().replace('"status": "complete"', '"status": "failed"'))
    for command in ("plan", "train"):
        done = finish([*tiny_arguments, f"model.path={run}"], tmp_path, command=command)
        assert done.sentence == f"error: model.path must be a run that ended well, got {run}, which failed"


def test_a_plan_over_a_run_reads_no_weights(
    finished_run: Finished, tmp_path: Path, tiny_arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORGETMENOT_CACHE", str(tmp_path / "cache"))
    run = shutil.copytree(finished_run.folder, tmp_path / "run")
    (run / "adapter" / "adapter_model.safetensors").write_bytes(b"unread")
    over_base = finish(tiny_arguments, tmp_path, command="plan")
    over_run = finish([*tiny_arguments, "model.path=run"], tmp_path, command="plan")
    assert (over_run.code, over_run.stdout) == (0, over_base.stdout), over_run.stderr


@pytest.mark.parametrize("command", ["train", "evaluate", "ask", "export"])
def test_a_run_whose_learned_weights_are_damaged_is_told_of_in_a_sentence(
    finished_run: Finished, tmp_path: Path, tiny_arguments: list[str], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("FORGETMENOT_CACHE", str(tmp_path / "cache"))
    run = shutil.copytree(finished_run.folder, tmp_path / "run")
    (run / "adapter" / "adapter_model.safetensors").write_bytes(b"torn")
    words = {
        "train": [*tiny_arguments, "model.path=run"], "evaluate": ["run=run"], "ask": ["run=run", "prompt=a film"],
        "export": ["run=run", "to=out"],
    }[command]  # fmt: skip
    done = finish(words, tmp_path, command=command)
    assert done.code == 1 and "adapter must hold what a run learned, got a damaged file (" in done.sentence


def test_a_third_run_retains_the_targets_of_both_and_merges_only_what_is_new(
    second: Finished,
    tmp_path: Path,
    tiny_arguments: list[str],
    user_conf: Path,
    tiny_data: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    merged = []
    original = base.merged
    monkeypatch.setattr(base, "merged", lambda model, **named: merged.append(model) or original(model, **named))
    data = ["data=local", "data.name=third", f"data.path={tiny_data}", "data.prompt=label", "data.completion=text",
            "data.max_new_tokens=2", "data.retained=[]"]  # fmt: skip

    done = _over(second.folder, *data, place=tmp_path, words=tiny_arguments, conf=user_conf)

    assert list(read_result(done.folder)["tasks"]) == ["third", "kept", "mood"]
    assert len(merged) == 1
    assert Path(merged[0].path).parent == cache_folder() / "merged", "the first run's was there"


def test_what_other_code_has_merged_is_merged_anew(
    finished_run: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORGETMENOT_CACHE", str(tmp_path))
    register_resolvers()
    paths = []
    for code in ("one", "one", "another"):
        monkeypatch.setattr(base_scores, "_code", lambda code=code: code)
        with initialize_config_dir(str(conf_folder()), version_base="1.3"):
            paths.append(base.plain_base(model_at(finished_run.folder)).path)
    assert paths[0] == paths[1] != paths[2]
    assert len(list((tmp_path / "merged").iterdir())) == 2


def test_where_room_ends_older_merged_bases_go_and_the_one_of_this_run_stays(
    finished_run: Finished, second: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORGETMENOT_CACHE", str(tmp_path))
    merged = tmp_path / "merged"
    (merged / "older").mkdir(parents=True)
    (merged / "older" / "model.safetensors").write_bytes(b"0" * 100)
    os.utime(merged / "older", (1000, 1000))
    monkeypatch.setattr(cache_room, "ROOM", 1)
    register_resolvers()
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        over_second = base.plain_base(model_at(second.folder))

    kept = sorted(str(path) for path in merged.iterdir())
    assert str(merged / "older") not in kept
    assert over_second.path in kept and len(kept) == 2, "what it was merged over is of this run, too"


def test_the_same_task_again_is_the_target_and_no_retained_one(
    finished_run: Finished, tmp_path: Path, tiny_arguments: list[str], user_conf: Path
) -> None:
    same = [word for word in tiny_arguments if word.startswith("data")]
    done = _over(finished_run.folder, *same, place=tmp_path, words=tiny_arguments,
                 conf=user_conf)  # fmt: skip
    assert list(read_result(done.folder)["tasks"]) == ["mood"]


def test_a_whole_models_run_is_taken_from_its_own_folder(tmp_path: Path, tiny_arguments: list[str]) -> None:
    first = finish([*tiny_arguments, "method=full", "max_steps=1"], tmp_path)
    register_resolvers()
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        model = base.plain_base(model_at(first.folder))
    assert model.path == str(first.folder / "model")


@pytest.mark.parametrize(
    ("which", "sentence"),
    [
        (
            "prompted",
            "model.path must be one that can be merged into its base, got zero_shot: it leaves the base as it is",
        ),
        ("evaluated", "model.path must be a run of train, got"),
        ("failed", "model.path must be a run that ended well, got"),
    ],
)
def test_a_run_that_cannot_be_a_base_is_refused_with_the_reason(
    finished_run: Finished, tmp_path: Path, tiny_arguments: list[str], which: str, sentence: str
) -> None:
    text = (finished_run.folder / "result.json").read_text()
    config = OmegaConf.load(finished_run.folder / "config.yaml")
    if which == "prompted":
        target = "forgetmenot.method.shots.Shots"
        config.method = {"_target_": target, "name": "zero_shot", "lr": None, "num_shots": 0}
    if which == "evaluated":
        config = OmegaConf.create({"run": "outputs/runs/some"})
    (tmp_path / which).mkdir()
    status = "failed" if which == "failed" else "complete"
    (tmp_path / which / "result.json").write_text(text.replace('"status": "complete"', f'"status": "{status}"'))
    OmegaConf.save(config, tmp_path / which / "config.yaml")

    done = finish([*tiny_arguments, f"model.path={which}"], tmp_path)

    assert done.code == 1
    assert sentence in done.sentence
