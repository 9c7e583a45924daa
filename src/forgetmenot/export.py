"""A finished run as a plain Hugging Face folder: what was learned becomes part of the base's own weights."""

import tempfile
from pathlib import Path

import torch
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from forgetmenot.data.encode import plain_frame
from forgetmenot.durable import whole_folder
from forgetmenot.method.base import Method, load_learned
from forgetmenot.model.load import Model, load, read_config
from forgetmenot.model.quantize import dequantized

DTYPE = torch.float32
"""What is written, whatever the base's file holds: a learned change is often smaller than bf16 can tell from nothing,
and rounded to it the answers were others than the run's."""


def check_mergeable(method: Method, *, key: str = "run") -> None:
    """Raises ValueError, naming the setting's `key`, where what a method learns is no part of the base's weights."""
    if method.unmergeable is not None:
        raise ValueError(f"{key} must be one that can be merged into its base, got {method.name}: {method.unmergeable}")


def merged(model: Model, *, method: Method, learned: Path, seed: int) -> PreTrainedModel:
    """Returns the base with what lies in `learned` merged in; `seed` draws a base that started from random weights.

    Of a base that was held in 4 bits it is the weights that those stand for: over others the run's answers were others.
    """
    base = load(model, config=read_config(model), dtype=DTYPE, seed=seed, quantization=method.quantization)
    return method.merge(load_learned(method, dequantized(base) if method.quantization else base, learned))


def check_free(folder: Path) -> None:
    """Raises ValueError where nothing can be written, or there is something already, which is never written over."""
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise ValueError(f"to must be a new or an empty folder, got {folder} with something in it")
    place = next(parent for parent in folder.absolute().parents if parent.exists())
    try:
        Path(tempfile.mkdtemp(dir=place)).rmdir()  # permissions alone do not tell
    except OSError as error:
        raise ValueError(f"to must lie where a folder can be made, got {folder}: {error.strerror}") from error


def frame_prompts(tokenizer: PreTrainedTokenizerBase, *, is_encoder_decoder: bool) -> None:
    """Has the tokenizer put around a text what stood around prompts: BOS, which many have and do not put, and EOS."""
    if isinstance(tokenizer, PreTrainedTokenizerFast):  # one of another kind has no such part
        frame = plain_frame(tokenizer, is_encoder_decoder=is_encoder_decoder)
        before, behind = (tokenizer.convert_ids_to_tokens(ids) for ids in frame)
        tokens = zip([*before, *behind], [*frame[0], *frame[1]], strict=True)
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single=[*before, "$A", *behind], pair=[*before, "$A", "$B", *behind], special_tokens=list(tokens)
        )


def write_model(folder: Path, model: PreTrainedModel, *, tokenizer: PreTrainedTokenizerBase) -> None:
    """Writes safetensors, config, generation config and tokenizer into `folder`, all of it or nothing.

    Raises OSError where it cannot be written, as where another process has filled it meanwhile.
    """
    with whole_folder(folder) as beside:
        model.save_pretrained(beside)
        tokenizer.save_pretrained(beside)
