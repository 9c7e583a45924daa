"""Loading: facts beside a really loaded model, seeds, and refusals in one sentence."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import CONFIGS, EOS, VOCAB, model_at, tiny, word_tokenizer
from transformers import BertConfig

from forgetmenot.model.facts import read_facts
from forgetmenot.model.load import Model, load, load_tokenizer, lr_scale, read_config


def saved(folder: Path, family: str = "llama") -> Model:
    """Returns a tiny model written into `folder` with its tokenizer, as transformers lays it out."""
    tiny(family).save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    return model_at(folder)


def loaded(model: Model, *, seed: int = 0) -> torch.nn.Module:
    return load(model, config=read_config(model), dtype=torch.float32, seed=seed)


def sentence(error: pytest.ExceptionInfo[ValueError]) -> str:
    """Returns the message, having checked that it is one line which names the key and the value."""
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith("model.path must ")
    assert ", got " in message
    return message


@pytest.mark.parametrize("family", list(CONFIGS))
def test_facts_are_those_of_the_really_loaded_model(family: str) -> None:
    model = tiny(family)

    facts = read_facts(model_at("nowhere"), model.config)

    assert facts.parameters == model.num_parameters()
    assert facts.embedding_rows == model.get_input_embeddings().num_embeddings
    decodes = family in ("t5", "bart")
    assert facts.is_encoder_decoder == (facts.architecture == "seq2seq") == decodes
    assert facts.context == (None if family == "t5" else 64)
    assert facts.decoder_start_id == (model.config.decoder_start_token_id if decodes else None)
    assert facts.takes_position_ids != decodes
    assert facts.selects_head


@pytest.mark.parametrize("family", ["llama", "gpt2", "t5"])
def test_a_saved_model_loads_with_its_weights(family: str, tmp_path: Path) -> None:
    model = loaded(saved(tmp_path, family))

    assert all(torch.equal(weight, tiny(family).state_dict()[name]) for name, weight in model.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("weights", ["pretrained", "random"])
def test_weights_come_in_the_type_that_is_asked_for(weights: str, dtype: torch.dtype, tmp_path: Path) -> None:
    model = replace(saved(tmp_path), weights=weights)

    assert {p.dtype for p in load(model, config=read_config(model), dtype=dtype, seed=0).parameters()} == {dtype}


def test_random_weights_are_drawn_by_the_seed_and_by_nothing_else(tmp_path: Path) -> None:
    CONFIGS["llama"].save_pretrained(tmp_path)
    model = model_at(tmp_path, weights="random")
    torch.manual_seed(1)
    first = loaded(model, seed=5).state_dict()
    torch.manual_seed(2)

    again, other = loaded(model, seed=5).state_dict(), loaded(model, seed=6).state_dict()

    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["lm_head.weight"], other["lm_head.weight"])


def test_drawing_weights_leaves_the_random_state_of_the_run(tmp_path: Path) -> None:
    CONFIGS["llama"].save_pretrained(tmp_path)
    state = torch.get_rng_state()

    loaded(model_at(tmp_path, weights="random"), seed=5)

    assert torch.equal(torch.get_rng_state(), state)


def test_random_weights_ignore_the_pretrained_ones(tmp_path: Path) -> None:
    model = saved(tmp_path)

    drawn = loaded(replace(model, weights="random"), seed=9)

    assert not torch.equal(drawn.lm_head.weight, loaded(model).lm_head.weight)


def test_a_folder_without_weights_is_refused_and_the_way_out_named(tmp_path: Path) -> None:
    CONFIGS["llama"].save_pretrained(tmp_path)

    with pytest.raises(ValueError) as error:
        read_config(model_at(tmp_path))

    assert "model.weights=random" in sentence(error)


def test_a_folder_that_holds_pickled_weights_alone_is_refused(tmp_path: Path) -> None:
    CONFIGS["llama"].save_pretrained(tmp_path)
    torch.save(tiny("llama").state_dict(), tmp_path / "pytorch_model.bin")

    with pytest.raises(ValueError) as error:
        read_config(model_at(tmp_path))

    assert "safetensors" in sentence(error)


def test_pickled_weights_are_not_read_even_past_the_first_check(tmp_path: Path) -> None:
    CONFIGS["llama"].save_pretrained(tmp_path)
    torch.save(tiny("llama").state_dict(), tmp_path / "pytorch_model.bin")

    with pytest.raises(ValueError) as error:
        load(model_at(tmp_path), config=CONFIGS["llama"], dtype=torch.float32, seed=0)

    sentence(error)


def test_a_folder_without_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError) as error:
        read_config(model_at(tmp_path))

    assert "config.json" in sentence(error)


@pytest.mark.parametrize("path", ["/no/such/folder", "./nowhere", "~/no_such_model", "a/b/c"])
def test_a_path_that_is_not_there_is_refused(path: str) -> None:
    with pytest.raises(ValueError) as error:
        read_config(model_at(path))

    assert path in sentence(error)


def test_a_hub_id_that_cannot_be_reached_is_refused() -> None:
    with pytest.raises(ValueError) as error:
        read_config(model_at("nobody/no-such-model"))

    assert "nobody/no-such-model" in sentence(error)


@pytest.mark.parametrize("config", ["not json", "[]", "{}", '{"model_type": "no_such_family"}'])
def test_a_config_that_transformers_cannot_read_is_refused(config: str, tmp_path: Path) -> None:
    saved(tmp_path)
    (tmp_path / "config.json").write_text(config)

    with pytest.raises(ValueError) as error:
        read_config(model_at(tmp_path))

    sentence(error)


@pytest.mark.parametrize(
    "change", [{"num_attention_heads": 0}, {"hidden_size": "abc"}, {"hidden_act": "no_such"}], ids=str
)
def test_a_config_of_which_no_model_can_be_made_is_refused(change: dict[str, object], tmp_path: Path) -> None:
    model = saved(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **change}))

    with pytest.raises(ValueError) as error:
        read_facts(model, read_config(model))

    sentence(error)


@pytest.mark.parametrize(("is_decoder", "refused"), [(False, True), (True, False)])
def test_a_model_that_sees_the_tokens_to_come_is_refused(is_decoder: bool, refused: bool, tmp_path: Path) -> None:
    BertConfig(is_decoder=is_decoder).save_pretrained(tmp_path)
    model = replace(model_at(tmp_path), weights="random")

    if not refused:
        assert read_config(model).is_decoder
        return
    with pytest.raises(ValueError) as error:
        read_config(model)
    assert "left to right" in sentence(error)


def test_a_model_that_neither_answers_nor_translates_is_refused(tmp_path: Path) -> None:
    model = saved(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit"}))

    with pytest.raises(ValueError) as error:
        read_facts(model, read_config(model))

    sentence(error)


def test_weights_that_were_cut_off_are_refused(tmp_path: Path) -> None:
    model = saved(tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:2000])

    with pytest.raises(ValueError) as error:
        loaded(model)

    sentence(error)


def test_weights_of_another_shape_than_the_config_says_are_refused(tmp_path: Path) -> None:
    model = saved(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "intermediate_size": 12}))

    with pytest.raises(ValueError) as error:
        loaded(model)

    sentence(error)


def test_weights_that_lack_a_layer_are_refused_and_not_drawn_at_random(tmp_path: Path) -> None:
    model = saved(tmp_path)
    kept = {name: w for name, w in load_file(tmp_path / "model.safetensors").items() if "layers.1." not in name}
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(ValueError) as error:
        loaded(model)

    sentence(error)


def test_a_tokenizer_without_padding_pads_with_its_end_token(tmp_path: Path) -> None:
    tokenizer = word_tokenizer()
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path)

    assert load_tokenizer(model_at(tmp_path), embedding_rows=VOCAB).pad_token_id == EOS


def test_padding_that_the_model_has_no_embedding_for_is_replaced_by_the_end_token(tmp_path: Path) -> None:
    tokenizer = word_tokenizer()
    tokenizer.add_special_tokens({"pad_token": "<padding>"})
    tokenizer.save_pretrained(tmp_path)

    assert load_tokenizer(model_at(tmp_path), embedding_rows=VOCAB).pad_token_id == EOS


def test_a_tokenizer_without_end_token_is_refused(tmp_path: Path) -> None:
    tokenizer = word_tokenizer()
    tokenizer.eos_token = None
    tokenizer.save_pretrained(tmp_path)

    with pytest.raises(ValueError) as error:
        load_tokenizer(model_at(tmp_path), embedding_rows=VOCAB)

    assert "EOS" in sentence(error)


def test_a_folder_without_tokenizer_is_refused(tmp_path: Path) -> None:
    tiny("llama").save_pretrained(tmp_path)

    with pytest.raises(ValueError) as error:
        load_tokenizer(model_at(tmp_path), embedding_rows=VOCAB)

    sentence(error)


@pytest.mark.parametrize(("parameters", "scale"), [(100_000_000, 1.0), (7_000_000_000, 1.0), (4_000_000, 5.0)])
def test_smaller_models_take_larger_steps_by_the_square_root_of_their_size(parameters: int, scale: float) -> None:
    assert lr_scale(model_at("nowhere"), parameters=parameters) == pytest.approx(scale)


def test_a_number_fixes_the_scale_of_the_learning_rate() -> None:
    assert lr_scale(replace(model_at("nowhere"), lr_scale=0.5), parameters=1000) == 0.5


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan])
def test_a_scale_that_is_not_above_zero_is_refused(scale: float) -> None:
    with pytest.raises(ValueError, match=f"^lr_scale must be auto or a number above 0, got {scale}$"):
        replace(model_at("nowhere"), lr_scale=scale)
