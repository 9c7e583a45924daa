"""Virtual tokens as the commands lay them out: a text to start from goes through the run's own tokenizer."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from rich.console import Console
from tiny_folders import write_model
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from forgetmenot.cli.setup import Setup, set_up
from forgetmenot.cli.wiring import adapt, encode
from forgetmenot.config.errors import ConfigError
from forgetmenot.config.paths import conf_folder, register_resolvers
from forgetmenot.config.retained import expand_retained
from forgetmenot.data.types import Encoded
from forgetmenot.loss import row_losses
from forgetmenot.result import RunResult


def set_up_with(arguments: list[str]) -> Setup:
    register_resolvers()
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        return set_up(expand_retained(compose("train", overrides=arguments)))


def test_a_soft_prompt_starts_as_the_models_own_embeddings_of_a_given_text(
    tiny_arguments: list[str], tiny_model: Path
) -> None:
    setup = set_up_with([*tiny_arguments, "method=prompt", "method.start=a fine film", "method.num_virtual_tokens=4"])

    module, _ = adapt(setup, encode(setup), result=RunResult(name="run"), console=Console(quiet=True))

    ids = AutoTokenizer.from_pretrained(tiny_model)("a fine film", add_special_tokens=False)["input_ids"]
    table = AutoModelForCausalLM.from_pretrained(tiny_model).get_input_embeddings()
    (started,) = [p for p in module.model.parameters() if p.requires_grad]
    torch.testing.assert_close(started, table(torch.tensor((ids * 4)[:4])), rtol=0, atol=0)


def test_a_prefix_takes_its_share_of_max_length_and_stands_in_no_row(tiny_arguments: list[str]) -> None:
    setup = set_up_with([*tiny_arguments, "method=prefix", "method.num_virtual_tokens=7"])

    _, data = adapt(setup, encode(setup), result=RunResult(name="run"), console=Console(quiet=True))

    assert setup.encoder.max_length == 64 - 7
    batch = data.step(0).micro_batches[0]
    assert batch.row_lengths is None
    assert int(batch.input_ids_BT.max()) < setup.facts.embedding_rows


def test_rows_to_score_leave_a_prefix_its_places_in_a_decoder_that_has_few(
    tiny_arguments: list[str], tmp_path: Path
) -> None:
    write_model(tmp_path, "bart", ["a fine film"])
    setup = set_up_with([*tiny_arguments, "model=seq2seq", f"model.path={tmp_path}", "method=prefix", "max_length=128"])
    model = setup.method.apply(AutoModelForSeq2SeqLM.from_pretrained(tmp_path).eval())
    prompt, completion = np.full(8, 5, dtype=np.int32), np.full(128 - 20 - 8, 6, dtype=np.int32)
    row = Encoded(input_ids=prompt, labels=completion, num_tokens=len(prompt) + len(completion))

    batch = setup.collator(virtual_tokens=setup.method.virtual_ids).to_score().rows([row])

    assert batch.decoder_input_ids_BS.shape == (1, 128 - 20)
    assert row_losses(model, batch, setup.facts).isfinite().all()


def test_recomputed_activations_are_refused_for_a_method_that_keeps_keys_and_values(tiny_arguments: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"^model\.activation_checkpointing must be false .*, got true for prefix"):
        set_up_with([*tiny_arguments, "method=prefix", "model.activation_checkpointing=true"])
