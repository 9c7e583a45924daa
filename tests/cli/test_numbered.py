"""A folder may be named by a number, and a run be found from the home folder."""

import shutil
from pathlib import Path

import pytest
from ended_runs import killed
from tiny_runs import Finished, Train, finish, read_result


@pytest.mark.parametrize("name", ["2024", "2024_01"])
def test_a_run_in_a_folder_that_is_named_by_a_number_goes_on(
    train: Train, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    failed = killed(train, monkeypatch, f"hydra.run.dir={name}")
    done = finish([f"resume={name}"], failed.place)
    assert done.code == 0, done.stderr
    assert "The run goes on after step 6." in done.stdout
    assert read_result(failed.place / name)["status"] == "complete"


def test_a_run_is_found_from_the_home_folder(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = killed(train, monkeypatch, "hydra.run.dir=mine")
    monkeypatch.setenv("HOME", str(failed.place))
    done = finish(["resume=~/mine"], failed.place)
    assert done.code == 0, done.stderr
    assert read_result(failed.place / "mine")["status"] == "complete"


@pytest.fixture
def place(finished_run: Finished, tmp_path: Path) -> Path:
    """A folder with a finished run in `2024`."""
    shutil.copytree(finished_run.folder, tmp_path / "2024")
    return tmp_path


@pytest.mark.parametrize(
    ("command", "words"), [("evaluate", ["run=2024"]), ("export", ["run=2024", "to=2025"]),
                           ("ask", ["run=2024", "prompt=good fun"])],
)  # fmt: skip
def test_a_finished_run_is_found_by_its_number(place: Path, command: str, words: list[str]) -> None:
    done = finish(words, place, command=command)
    assert done.code == 0, done.stderr


def test_a_base_is_found_by_its_number(place: Path, tiny_arguments: list[str]) -> None:
    done = finish([*tiny_arguments, "max_steps=1", "model.path=2024"], place)
    assert done.code == 0, done.stderr


def test_a_base_that_a_file_names_by_a_bare_number_is_found(place: Path, tiny_arguments: list[str]) -> None:
    (place / "model").mkdir()
    (place / "model" / "own.yaml").write_text("defaults: [causal, _self_]\nname: own\npath: 2024\n")
    words = [word for word in tiny_arguments if not word.startswith("model")]
    done = finish(["--config-dir", str(place), *words, "max_steps=1", "model=own"], place)
    assert done.code == 0, done.stderr
