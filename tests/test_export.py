"""A model's folder is written whole or not at all, and what cannot be merged is refused with the reason."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_models import model_at, tiny, word_tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast

from forgetmenot.config.compose import compose
from forgetmenot.config.paths import EMBEDDED_MODEL
from forgetmenot.data.encode import Encoder
from forgetmenot.data.types import IGNORE_INDEX, Example
from forgetmenot.export import check_free, check_mergeable, frame_prompts, merged, write_model
from forgetmenot.method.lora import Lora

LORA = Lora(name="lora", lr=1e-3, rank=2, alpha=4, dropout=0.0, target_modules=("all-linear",))


def test_what_is_written_is_what_transformers_loads(tmp_path: Path) -> None:
    model = tiny("llama")
    write_model(tmp_path / "deep" / "model", model, tokenizer=word_tokenizer())

    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "deep" / "model").state_dict()
    assert all(torch.equal(loaded[name], weight) for name, weight in model.state_dict().items())
    assert PreTrainedTokenizerFast.from_pretrained(tmp_path / "deep" / "model").get_vocab()
    assert [file.name for file in (tmp_path / "deep").iterdir()] == ["model"], "nothing is left beside it"


@pytest.mark.parametrize("is_encoder_decoder", [False, True])
@pytest.mark.parametrize("load", [word_tokenizer, lambda: AutoTokenizer.from_pretrained(EMBEDDED_MODEL)])
def test_a_tokenizer_that_is_written_lays_out_a_prompt_as_a_run_does(
    tmp_path: Path, load: Callable[[], PreTrainedTokenizerFast], is_encoder_decoder: bool
) -> None:
    tokenizer = load()
    assert tokenizer("w4 w7").input_ids == tokenizer("w4 w7", add_special_tokens=False).input_ids, "it adds nothing yet"
    encoder = Encoder(tokenizer=tokenizer, max_length=64, truncate="left", is_encoder_decoder=is_encoder_decoder)
    row = encoder.scoring_rows([Example(prompt="w4 w7", completion="w5", references=("w5",))], max_new_tokens=1).rows[0]

    frame_prompts(tokenizer, is_encoder_decoder=is_encoder_decoder)
    write_model(tmp_path / "model", tiny("llama"), tokenizer=tokenizer)

    ids = AutoTokenizer.from_pretrained(tmp_path / "model")("w4 w7").input_ids
    assert ids == (row.input_ids if is_encoder_decoder else row.input_ids[row.labels == IGNORE_INDEX]).tolist()


def test_a_folder_that_could_not_be_written_whole_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: PreTrainedTokenizerFast, folder: Path) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(PreTrainedTokenizerFast, "save_pretrained", full)
    with pytest.raises(OSError, match="No space"):
        write_model(tmp_path / "model", tiny("llama"), tokenizer=word_tokenizer())
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_is_taken_and_one_with_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "notes.txt").write_text("mine")

    write_model(tmp_path / "empty", tiny("llama"), tokenizer=word_tokenizer())
    assert (tmp_path / "empty" / "model.safetensors").is_file()
    for taken in ("used", "used/notes.txt"):
        with pytest.raises(ValueError, match=r"^to must be a new or an empty folder, got .*with something in it$"):
            check_free(tmp_path / taken)


@pytest.mark.parametrize("taken", ["used", "used/notes.txt"])
def test_a_folder_that_another_process_filled_meanwhile_stays_as_it_is(tmp_path: Path, taken: str) -> None:
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "notes.txt").write_text("of another")
    with pytest.raises(OSError, match=r"Directory not empty|Not a directory"):
        write_model(tmp_path / taken, tiny("llama"), tokenizer=word_tokenizer())
    (left,) = (path for path in tmp_path.rglob("*") if path.is_file())
    assert left.read_text() == "of another"


@pytest.mark.parametrize("to", ["/proc/model", "/proc/deeper/model", "notes.txt/model"])
def test_a_place_where_nothing_can_be_written_is_refused_and_left_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=rf"^to must lie where a folder can be made, got {to}: \w"):
        check_free(Path(to))
    check_free(Path("new/deeper/model"))
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_base_in_bf16_is_merged_in_fp32_so_that_small_changes_are_kept(tmp_path: Path) -> None:
    write_model(tmp_path / "base", tiny("llama").to(torch.bfloat16), tokenizer=word_tokenizer())
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    adapted = LORA.apply(base)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.fill_(1e-3)
    LORA.save(adapted, tmp_path / "adapter")
    ids = torch.arange(4, 12)[None]
    expected = adapted(input_ids=ids).logits

    plain: PreTrainedModel = merged(model_at(tmp_path / "base"), method=LORA, learned=tmp_path / "adapter", seed=0)

    assert {weight.dtype for weight in plain.state_dict().values()} == {torch.float32}
    assert not any("lora" in name for name in plain.state_dict())
    torch.testing.assert_close(plain(input_ids=ids).logits, expected, rtol=1e-4, atol=1e-5)
    rounded = plain.to(torch.bfloat16).float()
    assert not torch.allclose(rounded(input_ids=ids).logits, expected, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize(
    ("choice", "reason"),
    [("prompt", "its virtual tokens stand before each prompt"), ("few_shot", "it leaves the base as it is")],
)
def test_what_is_no_part_of_the_weights_is_refused_with_the_reason(choice: str, reason: str) -> None:
    with pytest.raises(ValueError, match=f"^run must be one that can be merged into its base, got {choice}: {reason}"):
        check_mergeable(compose(f"method/{choice}"))  # type: ignore[arg-type]
