"""A finished run where a model is asked for: its learned weights are merged into its own base first."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from forgetmenot.base_scores import weights_of
from forgetmenot.config.build import build, import_plugins
from forgetmenot.config.errors import ConfigError
from forgetmenot.config.paths import cache_folder
from forgetmenot.config.source import is_run, read_source
from forgetmenot.export import check_mergeable, merged, write_model
from forgetmenot.method.base import Method
from forgetmenot.model.facts import read_facts
from forgetmenot.model.load import Model, load_tokenizer, read_config
from forgetmenot.result import RunResult


@dataclass(frozen=True, kw_only=True)
class Mergeable:
    """A finished run whose learned weights can become part of its base's, which is a plain model."""

    base: Model
    method: Method
    learned: Path
    seed: int


def plain_base(model: Model) -> Model:
    """Returns `model` itself, or where its path is a finished run the plain model that the run came to.

    What had to be merged is kept on disk, so that it is done once.
    """
    if not is_run(model.path):
        return model
    run = read_mergeable(model.path, key="model.path")
    if not run.method.freezes_base:
        return replace(model, path=str(run.learned))
    folder = cache_folder() / "merged" / _key(run)
    if not (folder / "config.json").is_file():
        facts = read_facts(run.base, read_config(run.base))
        tokenizer = load_tokenizer(run.base, embedding_rows=facts.embedding_rows)
        whole = merged(run.base, method=run.method, learned=run.learned, seed=run.seed)
        try:
            write_model(folder, whole, tokenizer=tokenizer)
        except OSError:
            if not (folder / "config.json").is_file():  # else another run was faster
                raise
    return replace(model, path=str(folder))


def read_mergeable(path: str, *, key: str) -> Mergeable:
    """Returns the run at `path`; raises ValueError, naming the setting's `key`, where it cannot be merged."""
    source = read_source(path, {}, key=key)
    if source.folder is None:
        raise ConfigError(f"{key} must be a finished run, got {path}, a model that is plain already")
    status = RunResult.read(source.folder).status
    if status != "complete":
        was = "failed" if status == "failed" else "was interrupted"
        raise ConfigError(f"{key} must be a run that ended well, got {path}, which {was}")
    plugins = import_plugins(tuple(source.config.plugins))
    method = build(source.config.method, Method, key="method", plugins=plugins)
    check_mergeable(method, key=key)
    return Mergeable(
        base=plain_base(build(source.config.model, Model, key="model")),
        method=method,
        learned=source.folder / method.folder,
        seed=int(source.config.seed),
    )


def _key(run: Mergeable) -> str:
    """Returns a name for the merged model: what was learned, file by file, and what it was learned over."""
    digest = hashlib.sha256(repr(run.method).encode())
    digest.update(str(weights_of(run.base, read_config(run.base), seed=run.seed) or run.base.path).encode())
    for file in sorted(run.learned.glob("*.safetensors")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:32]
