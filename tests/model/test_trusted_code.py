"""A model folder may hold code of others: it is not run unless that is asked for."""

import contextlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_models import VOCAB, model_at, tiny, word_tokenizer

from forgetmenot.model.load import load_tokenizer, read_config


@pytest.mark.parametrize("part", ["config.json", "tokenizer_config.json"])
def test_code_in_a_models_folder_is_not_run_unless_it_is_trusted(tmp_path: Path, part: str) -> None:
    tiny("llama").save_pretrained(tmp_path / "model")
    word_tokenizer().save_pretrained(tmp_path / "model")
    model = model_at(tmp_path / "model")
    mark = tmp_path / "ran"
    code = f"""import os
os.mkdir({str(mark)!r})
from transformers import LlamaConfig, LlamaTokenizer
class Config(LlamaConfig):
    model_type = "theirs"
class Tokenizer(LlamaTokenizer):
    pass
"""
    (tmp_path / "model" / "theirs.py").write_text(code)
    file = tmp_path / "model" / part
    settings = json.loads(file.read_text())
    its_code = (
        {"AutoConfig": "theirs.Config"} if part == "config.json" else {"AutoTokenizer": ["theirs.Tokenizer", None]}
    )
    unknown = {"model_type": "theirs"} if part == "config.json" else {"tokenizer_class": "Theirs"}
    file.write_text(json.dumps({**settings, **unknown, "auto_map": its_code}))

    with pytest.raises(ValueError, match=r"^model\.path must .*, got "):
        read_config(model)
        load_tokenizer(model, embedding_rows=VOCAB)

    assert not mark.exists()
    if part == "config.json":
        with contextlib.suppress(ValueError):
            read_config(replace(model, trust_remote_code=True))
        assert mark.exists(), "it would have run"
