"""A model of a few thousand weights, a few examples, and runs of `train` over them."""

import json
from pathlib import Path

import pytest
import torch
from slurm_jobs import WORDS
from tiny_runs import Finished, Train, finish
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

_WORDS = [("a fine film", "positive"), ("a dull film", "negative"), ("good fun", "positive"), ("bad luck", "negative")]

RECORDS = [{"text": f"{text} {i}", "label": label, "number": i} for i in range(6) for text, label in _WORDS]


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen2 of one layer with a byte-level tokenizer of about 300 pieces, in the Hugging Face layout."""
    folder = tmp_path_factory.mktemp("tiny_model")
    special = ["<pad>", "<bos>", "<eos>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([f"{r['text']} {r['label']}" for r in RECORDS], trainer)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>"
    ).save_pretrained(folder)
    config = Qwen2Config(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=128,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        Qwen2ForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 16 examples to train on, 4 to validate and 4 to test."""
    folder = tmp_path_factory.mktemp("tiny_data")
    for name, records in (("train", RECORDS[:16]), ("validation", RECORDS[16:20]), ("test", RECORDS[20:])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


@pytest.fixture(scope="session")
def user_conf(tmp_path_factory: pytest.TempPathFactory, tiny_data: Path) -> Path:
    """A config folder of a user's own with two data sets, `kept` and `mood`."""
    folder = tmp_path_factory.mktemp("user_conf")
    (folder / "data").mkdir()
    (folder / "data" / "kept.yaml").write_text(
        f"defaults: [local, _self_]\nname: kept\npath: {tiny_data}\n"
        "prompt: text\ncompletion: number\nmax_new_tokens: 2\n"
    )
    (folder / "data" / "mood.yaml").write_text(
        f"defaults: [local, _self_]\nname: mood\npath: {tiny_data}\n"
        "prompt: text\ncompletion: label\nmax_new_tokens: 2\n"
    )
    return folder


@pytest.fixture(scope="session")
def tiny_arguments(tiny_model: Path, tiny_data: Path) -> list[str]:
    """What makes a run tiny: the small model, a local data set, nothing retained, one epoch of four steps."""
    return [
        "model=causal",
        f"model.path={tiny_model}",
        "data=local",
        "data.name=mood",
        f"data.path={tiny_data}",
        "data.prompt=text",
        "data.completion=label",
        "data.max_new_tokens=2",
        "data.retained=[]",
        "trainer=cpu",
        "logger=none",
        "precision=fp32",
        "epochs=1",
        "batch_size=4",
        "max_length=64",
    ]


@pytest.fixture
def train(tmp_path: Path, tiny_arguments: list[str]) -> Train:
    """Runs `train` with the tiny arguments and those given, in a folder of its own; `options` are Hydra's own flags."""
    return lambda *arguments, options=(): finish([*options, *tiny_arguments, *arguments], tmp_path)


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory, tiny_arguments: list[str], user_conf: Path) -> Finished:
    """One complete LoRA run with a retained task, shared by the tests that look at what it left behind."""
    options = ["--config-dir", str(user_conf)]
    done = finish(
        [*options, *tiny_arguments, "data.retained=[kept]", "method.rank=2"], tmp_path_factory.mktemp("finished_run")
    )
    assert done.code == 0, done.stderr
    return done


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, tiny_arguments: list[str]) -> Path:
    """The folder of the run that tests have Slurm interrupt, without a cluster."""
    done = finish([*tiny_arguments, *WORDS], tmp_path_factory.mktemp("uninterrupted"))
    assert done.code == 0, done.stderr
    return done.folder
