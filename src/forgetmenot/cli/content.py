"""What a run reads, as checksums: one that goes on has to find it as it was."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from forgetmenot.base_scores import weights_of
from forgetmenot.cli.penalties import reading_of
from forgetmenot.cli.setup import Setup
from forgetmenot.config.errors import ConfigError
from forgetmenot.data.examples import TaskExamples

_WEIGHTS = (".safetensors", ".bin")
_FOR_PEOPLE = (".md", "")  # README, licence: nothing is computed with them
_MORE_TEMPLATES = "additional_chat_templates/*"


def content_of(setup: Setup) -> dict[str, str]:
    """Returns checksums of the base's files, those of models that penalties read, and each data set's examples."""
    read = {"model.path": _of_model(setup)}
    for regularizer in setup.regularizers:
        if regularizer.other_model is not None:
            read[f"regularizer.{regularizer.name}.reference"] = _of_model(reading_of(setup, regularizer.other_model))
    for role, each in (("data", setup.targets), ("data.retained", setup.retained)):
        read |= {f"{role}.path of {data.task.name}": _of_examples(data) for data in each}
    return read


def check_content(was: object, setup: Setup) -> None:
    """Raises ConfigError, naming both checksums, where something is not what it was when the run began."""
    now = content_of(setup)
    assert isinstance(was, dict), "as content_of gave it"
    for key in sorted(was.keys() | now.keys()):
        if was.get(key) != now.get(key):
            raise ConfigError(
                f"{key} must hold what it held when the run began, with the checksum {was.get(key)}, got "
                f"{now.get(key)}; put that back, or start a new run"
            )


def _of_model(setup: Setup) -> str:
    folder = Path(setup.model.path).expanduser()
    if setup.model.weights == "random" or not folder.is_dir():
        drawn = str(weights_of(setup.model, setup.model_config, seed=setup.settings.seed))
        return _digest([drawn.encode(), _of_folder(folder, but=_WEIGHTS).encode()])
    return _of_folder(folder)


def _of_folder(folder: Path, *, but: tuple[str, ...] = ()) -> str:
    """Returns the checksum of a folder's files, tokenizer and chat templates among them."""
    files = [file for file in sorted((*folder.glob("*"), *folder.glob(_MORE_TEMPLATES))) if file.is_file()]
    counted = [file for file in files if file.suffix not in (*but, *_FOR_PEOPLE)]
    return _digest(part for file in counted for part in (str(file.relative_to(folder)).encode(), _sum(file)))


def _of_examples(data: TaskExamples) -> str:
    splits = (data.train, data.validation, data.test)
    texts = [[[e.prompt, e.completion, list(e.references)] for e in split] for split in splits]
    return _digest([json.dumps(texts).encode()])


def _sum(file: Path) -> bytes:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()


def _digest(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()[:16]
