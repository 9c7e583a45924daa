"""A finished run where a model is asked for: its learned weights are merged into its own base first."""

import hashlib
import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from forgetmenot.base_scores import computing, weights_of
from forgetmenot.cache_room import make_room, mark_used, run_began
from forgetmenot.config.build import build, import_plugins
from forgetmenot.config.errors import ConfigError
from forgetmenot.config.paths import cache_folder
from forgetmenot.config.settings import Asking
from forgetmenot.config.source import is_run, read_source
from forgetmenot.data.chat import Chat
from forgetmenot.export import check_mergeable, merged, write_model
from forgetmenot.generate import end_with
from forgetmenot.method.base import Method
from forgetmenot.model.facts import read_facts
from forgetmenot.model.load import Model, load_tokenizer, read_config
from forgetmenot.result import RunResult


@dataclass(frozen=True, kw_only=True)
class Mergeable:
    """A finished run whose learned weights can become part of those of the model that it `began` with, maybe a run."""

    began: Model
    method: Method
    learned: Path
    seed: int

    @cached_property
    def base(self) -> Model:
        """What it began with as a plain model: merged first, once it is asked for, where it is a run itself."""
        return plain_base(self.began)


def shape_of(model: Model) -> Model:
    """Returns a plain model like the one that `plain_base` gives, but for weights that would have to be merged first.

    So what cannot be is known before any are read.
    """
    if not is_run(model.path):
        return model
    run = _read_base(model)
    if not run.method.freezes_base:
        return replace(model, path=str(run.learned), weights="pretrained")
    return shape_of(replace(model, path=run.began.path, weights=run.began.weights))


def plain_base(model: Model) -> Model:
    """Returns `model` itself, or where its path is a finished run the plain model that the run came to.

    What had to be merged is kept on disk, so that it is done once; of what takes more than 16 GiB there, what was used
    longest ago, and not by this run, is removed.
    """
    if not is_run(model.path):
        return model
    run = _read_base(model)
    if not run.method.freezes_base:
        return replace(model, path=str(run.learned), weights="pretrained")
    folder = cache_folder() / "merged" / _key(run)
    mark_used(folder)
    if not (folder / "config.json").is_file():
        tokenizer = tokenizer_of(run.base)
        whole = whole_model(run, tokenizer=tokenizer)
        try:
            write_model(folder, whole, tokenizer=tokenizer)
        except OSError:
            if not (folder / "config.json").is_file():  # else another run was faster
                raise
        make_room(folder.parent, newest=folder, in_use_since=run_began())
    return replace(model, path=str(folder), weights="pretrained")


def tokenizer_of(model: Model) -> PreTrainedTokenizerBase:
    """Returns the model's tokenizer."""
    return load_tokenizer(model, embedding_rows=read_facts(model, read_config(model)).embedding_rows)


def whole_model(run: Mergeable, *, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """Returns the plain model that the run came to, whose answers end where the run's do."""
    whole = merged(run.base, method=run.method, learned=run.learned, seed=run.seed)
    if run.base.chat:
        end_with(whole, Chat.of(tokenizer).end, tokenizer=tokenizer)
    return whole


def read_mergeable(path: str, *, key: str, asking: Asking) -> Mergeable:
    """Returns the run at `path`; raises ValueError, naming the setting's `key`, where it cannot be merged."""
    source = read_source(path, {}, key=key, asking=asking)
    if source.folder is None:
        what = "a model that is plain already" if Path(path).expanduser().is_dir() else "where no folder is"
        raise ConfigError(f"{key} must be a finished run, got {path}, {what}")
    status = RunResult.read(source.folder).status
    if status != "complete":
        was = "failed" if status == "failed" else "was interrupted"
        raise ConfigError(f"{key} must be a run that ended well, got {path}, which {was}")
    plugins = import_plugins(tuple(source.config.plugins))
    method = build(source.config.method, Method, key="method", plugins=plugins)
    check_mergeable(method, key=key)
    learned = source.folder / method.folder
    if not learned.is_dir():
        raise ConfigError(f"{key} must be a run that ended well, got {path} without {method.folder}/")
    began = build(source.config.model, Model, key="model")
    return Mergeable(began=began, method=method, learned=learned, seed=int(source.config.seed))


def _read_base(model: Model) -> Mergeable:
    """Returns the run that a model's path names; raises ConfigError where its prompts are laid out otherwise."""
    run = read_mergeable(model.path, key="model.path", asking=Asking(trust_remote_code=model.trust_remote_code))
    if run.began.chat != model.chat:
        asked, found = str(run.began.chat).lower(), str(model.chat).lower()
        raise ConfigError(f"model.chat must be {asked}, as in the run at model.path, got {found}")
    return run


def _key(run: Mergeable) -> str:
    """Returns a name for the merged model: what was learned, file by file, over what, and the code that merges."""
    digest = hashlib.sha256(repr(run.method).encode())
    digest.update(json.dumps(computing(), sort_keys=True).encode())
    digest.update(str(weights_of(run.base, read_config(run.base), seed=run.seed) or run.base.path).encode())
    for file in sorted(run.learned.glob("*.safetensors")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:32]
