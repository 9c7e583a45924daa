"""Keeps what a base model scored, under a key of all that it depends on, so that it is scored once."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from importlib.metadata import version
from pathlib import Path

import numpy as np
from transformers import PretrainedConfig

from forgetmenot.cache_room import make_room, mark_used
from forgetmenot.data.examples import ScoringSet
from forgetmenot.durable import write_whole
from forgetmenot.model.load import Model
from forgetmenot.scores import ExampleScores
from forgetmenot.scoring import Measured

_COMPUTING = ("torch", "transformers", "tokenizers")  # packages that decide what a model answers


def weights_of(model: Model, config: PretrainedConfig, *, seed: int) -> str | None:
    """Returns what tells a base's weights from others, or None where nothing does.

    A folder's files by name, size and time of change; a hub's by commit; random ones by the seed.
    """
    if model.weights == "random":
        return f"random {seed} {config.to_json_string()}"
    folder = Path(model.path).expanduser()
    if folder.is_dir():
        files = [file for file in sorted(folder.iterdir()) if file.is_file()]
        facts = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
        return json.dumps([str(folder.resolve()), *facts])
    commit = getattr(config, "_commit_hash", None)
    return None if commit is None else f"{model.path} {commit}"


def computing() -> dict[str, object]:
    """Returns what tells the code that computes from other code: ours, and the packages that it rests on."""
    return {"code": _code(), "versions": {name: version(name) for name in _COMPUTING}}


def key_of(data: ScoringSet, settings: Mapping[str, object]) -> str:
    """Returns a name for what a base with `settings` scores on `data`, by this code."""
    facts = {**computing(), "task": asdict(data.task), **settings}
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for split in (data.rows, *data.choices):
        for array in (split.rows.tokens, split.rows.prompt_lengths, split.rows.completion_lengths):
            digest.update(np.ascontiguousarray(array).tobytes())
    digest.update(json.dumps(data.references).encode())
    return digest.hexdigest()[:32]


def read_scores(folder: Path, key: str) -> Measured | None:
    """Returns what lies in `folder` under `key`; None where nothing does, or not all of it."""
    file = folder / f"{key}.json"
    mark_used(file)
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        scores = ExampleScores(
            names=tuple(values["names"]),
            sums_NS=np.array(values["sums"], dtype=np.float64),
            weights_NS=np.array(values["weights"], dtype=np.float64),
        )
        return Measured(scores=scores, answers=tuple(values["answers"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def keep_scores(folder: Path, key: str, measured: Measured) -> None:
    """Writes scores and answers into `folder` under `key`, whole or not at all, and makes room for them."""
    scores = measured.scores
    values = {
        "names": scores.names,
        "sums": scores.sums_NS.tolist(),
        "weights": scores.weights_NS.tolist(),
        "answers": measured.answers,
    }
    file = folder / f"{key}.json"
    write_whole(file, json.dumps(values, ensure_ascii=False))
    make_room(file.parent, newest=file)


@cache
def _code() -> str:
    """Returns a name for the code that scores: all of this package's."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()
