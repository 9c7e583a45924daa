"""What a base scored is found again under the same settings, and no other."""

import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_models import CONFIGS, model_at
from tiny_tasks import make_task

from forgetmenot import base_scores, cache_room
from forgetmenot.base_scores import keep_scores, key_of, read_scores, weights_of
from forgetmenot.data.examples import ScoringSet
from forgetmenot.data.rows import EncodedSplit, Rows
from forgetmenot.data.types import Example
from forgetmenot.scores import ExampleScores
from forgetmenot.scoring import Measured

MEASURED = Measured(
    scores=ExampleScores(
        names=("accuracy", "loss"),
        sums_NS=np.array([[1.0, 0.1], [0.0, 2 / 3]]),
        weights_NS=np.array([[1.0, 3], [1, 4]]),
    ),
    answers=("positive", "n\u00e9\n"),
)


def split(*pairs: tuple[list[int], list[int]]) -> EncodedSplit:
    rows = Rows.of(pairs, is_encoder_decoder=False)
    return EncodedSplit(rows=rows, example_indices=np.arange(len(pairs)), truncated=0, dropped=0)


def data() -> ScoringSet:
    examples = tuple(Example(prompt=p, completion="x", references=("x",)) for p in "ab")
    rows = split(([5, 6], [7]), ([5], [7]))
    return ScoringSet(task=make_task(), examples=examples, rows=rows, num_bytes=np.ones(2))


def test_scores_and_answers_are_found_again_to_the_last_digit(tmp_path: Path) -> None:
    keep_scores(tmp_path, "key", MEASURED)
    found = read_scores(tmp_path, "key")
    assert found is not None
    assert found.answers == MEASURED.answers and found.scores.names == MEASURED.scores.names
    assert np.array_equal(found.scores.sums_NS, MEASURED.scores.sums_NS)
    assert np.array_equal(found.scores.weights_NS, MEASURED.scores.weights_NS)


def test_scores_that_were_found_last_stay_and_older_ones_make_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for age, key in ((300, "old"), (600, "found"), (400, "older")):
        keep_scores(tmp_path, key, MEASURED)
        os.utime(tmp_path / f"{key}.json", (time.time() - age,) * 2)
    assert read_scores(tmp_path, "found") is not None
    monkeypatch.setattr(cache_room, "ROOM", 2 * (tmp_path / "found.json").stat().st_size)

    keep_scores(tmp_path, "new", MEASURED)

    assert {file.stem for file in tmp_path.iterdir()} == {"found", "new"}


@pytest.mark.parametrize("damage", ["", "{}", "[1]", '{"names": ["a"]', '{"names": 3, "sums": "x"}'])
def test_what_is_damaged_counts_as_none(tmp_path: Path, damage: str) -> None:
    (tmp_path / "key.json").write_text(damage)
    assert read_scores(tmp_path, "key") is None
    assert read_scores(tmp_path, "other") is None


def test_the_same_settings_and_data_have_the_same_key_and_others_another(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"weights": "a", "held_in": "bf16"}
    same = key_of(data(), settings)
    assert key_of(data(), dict(reversed(settings.items()))) == same

    reworded = replace(data(), examples=(replace(data().examples[0], references=("y",)), data().examples[1]))
    others = [
        key_of(data(), {**settings, "held_in": "fp32"}),
        key_of(replace(data(), task=make_task(max_new_tokens=5)), settings),
        key_of(replace(data(), rows=split(([5], [6, 7]), ([5], [7]))), settings),
        key_of(replace(data(), choices=(split(([5], [6])),)), settings),
        key_of(reworded, settings),
    ]
    monkeypatch.setattr(base_scores, "_code", lambda: "another")
    others.append(key_of(data(), settings))
    assert len({same, *others}) == 7


def test_weights_are_told_apart_by_their_files_the_seed_or_the_hubs_commit(tmp_path: Path) -> None:
    config = CONFIGS["llama"]
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"0" * 10)
    here = weights_of(model_at(tmp_path), config, seed=0)
    assert weights_of(model_at(tmp_path), config, seed=1) == here
    os.utime(file, ns=(1, 1))
    assert weights_of(model_at(tmp_path), config, seed=0) != here

    drawn = [weights_of(model_at(tmp_path, weights="random"), config, seed=seed) for seed in (0, 1)]
    assert drawn[0] != drawn[1]

    assert weights_of(model_at("some/model"), config, seed=0) is None
    downloaded = type(config).from_dict(config.to_dict())
    downloaded._commit_hash = "abc"
    assert weights_of(model_at("some/model"), downloaded, seed=0) == "some/model abc"
