"""What the probes run on: models of a few hundred thousand random weights in folders, and data sets of 28 records."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer, PreTrainedModel

import forgetmenot
from forgetmenot.loggers import quiet_libraries

_TOKENIZER = Path(forgetmenot.__file__).parent / "assets" / "tiny"

_SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": True}

FAMILIES: Mapping[str, Mapping[str, object]] = {
    "qwen2": {
        "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 1, "max_position_embeddings": 256, "initializer_range": 0.3,
    },
    "t5": {
        "d_model": 64, "d_kv": 32, "d_ff": 128, "num_layers": 2, "num_heads": 2, "decoder_start_token_id": 0,
        "dropout_rate": 0.0, "initializer_factor": 1.0,
    },
    "bart": {
        "d_model": 64, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 128, "decoder_ffn_dim": 128,
        "encoder_attention_heads": 2, "decoder_attention_heads": 2, "max_position_embeddings": 256, "init_std": 0.3,
        "dropout": 0.0, "decoder_start_token_id": 2, "forced_eos_token_id": None,
    },
}  # fmt: skip
"""Sizes are multiples of the 64 weights that share a scale in 4 bits; weights are drawn far from 0, so that the logits
of a greedy answer lie apart."""

DATA = ("mood", "number", "colour")
"""Data sets of the same texts, named as the column that is learned."""

_TEXTS = (("a fine film", "good"), ("a dull film", "bad"), ("good fun", "good"), ("bad luck", "bad"))
_COLOURS = ("red", "green", "blue")
_SPLITS = {"train": slice(0, 16), "validation": slice(16, 20), "test": slice(20, 28)}


def write_materials(place: Path) -> None:
    """Writes the models, the records, and a config folder that names the data sets, all below `place`."""
    quiet_libraries()
    for family in FAMILIES:
        _write_model(place / family, family)
    _write_records(place / "records")
    (place / "conf" / "data").mkdir(parents=True)
    for name in DATA:
        settings = f"prompt: text\ncompletion: {name}\nmax_new_tokens: 2\n"
        yaml = f"defaults: [local, _self_]\nname: {name}\npath: records\n{settings}"
        (place / "conf" / "data" / f"{name}.yaml").write_text(yaml, encoding="utf-8")


def weight_files(place: Path) -> list[Path]:
    """Returns the files of the models' weights."""
    return [place / family / "model.safetensors" for family in FAMILIES]


def _write_model(folder: Path, family: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(_TOKENIZER)
    tokenizer.save_pretrained(folder)
    config = AutoConfig.for_model(family, vocab_size=len(tokenizer), **_SPECIAL, **FAMILIES[family])
    auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    draw: Callable[..., PreTrainedModel] = auto.from_config
    with torch.random.fork_rng():
        torch.manual_seed(0)
        draw(config, dtype=torch.float32).save_pretrained(folder)


def _write_records(folder: Path) -> None:
    records = [
        {"text": f"{text} {number}", "mood": mood, "number": number, "colour": _COLOURS[number % len(_COLOURS)]}
        for number in range(7)
        for text, mood in _TEXTS
    ]
    folder.mkdir()
    for split, part in _SPLITS.items():
        lines = "".join(json.dumps(record) + "\n" for record in records[part])
        (folder / f"{split}.jsonl").write_text(lines, encoding="utf-8")
