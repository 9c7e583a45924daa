"""The embedded model and data, end to end: what the base knows, and that what a run saved answers without us."""

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from tiny_runs import finish, read_lines, read_result
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

import forgetmenot

pytestmark = pytest.mark.slow

TINY = Path(forgetmenot.__file__).parent / "assets" / "tiny"


def trained(place: Path, *arguments: str) -> Path:
    """Returns the folder of a finished run on sentiment."""
    run = finish(["data=sentiment", "logger=none", "trainer=cpu", *arguments], place)
    assert run.code == 0, run.stderr
    return run.folder


def test_the_base_knows_its_tasks_and_not_the_target(tmp_path: Path) -> None:
    tasks = read_result(trained(tmp_path, "method=lora", "max_steps=1"))["tasks"]

    assert tasks["sentiment"]["before"]["accuracy"] == 0.0
    for name, least in (("names", 0.9), ("party", 0.75), ("fact_or_opinion", 0.75)):
        assert tasks[name]["before"]["accuracy"] >= least and tasks[name]["counted"]


@pytest.mark.parametrize("method", ["full", "lora", "prompt", "regularized"])
def test_what_a_run_saved_answers_as_it_wrote_with_plain_libraries(tmp_path: Path, method: str) -> None:
    folder = trained(tmp_path, f"method={method}", "precision=fp32", "max_steps=20", "data.retained=[]")
    lines = read_lines(folder / "predictions" / "sentiment.jsonl")[:100]

    model, tokenizer = plainly_loaded(folder)
    answers = [plain_answer(model, tokenizer, str(line["prompt"])) for line in lines]

    assert len(lines) == 100
    assert answers == [line["after"] for line in lines]


@pytest.mark.parametrize("method", ["full", "lora", "dora", "qlora", "ia3"])
def test_an_exported_run_answers_as_it_wrote_with_transformers_alone(tmp_path: Path, method: str) -> None:
    folder = trained(tmp_path, f"method={method}", "precision=fp32", "max_steps=60", "data.retained=[]")
    lines = read_lines(folder / "predictions" / "sentiment.jsonl")[:100]
    assert len({line["after"] for line in lines}) > 1, "answers that a merge can change"
    assert finish([f"run={folder}", "to=plain"], tmp_path, command="export").code == 0

    model = AutoModelForCausalLM.from_pretrained(tmp_path / "plain").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "plain")

    assert [plain_answer(model, tokenizer, str(line["prompt"])) for line in lines] == [line["after"] for line in lines]


def test_the_same_seed_gives_the_same_numbers_twice(tmp_path: Path) -> None:
    results = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        results.append(read_result(trained(tmp_path / name, "method=lora", "max_steps=10")))

    for key in ("tasks", "gain", "forgetting", "data", "model", "seed"):
        assert json.dumps(results[0][key]) == json.dumps(results[1][key])


def plainly_loaded(folder: Path) -> tuple[PreTrainedModel, AutoTokenizer]:
    """Loads a run's model/ or adapter/ with transformers and peft alone, in fp32."""
    if (folder / "model").is_dir():
        model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
        return model.eval(), AutoTokenizer.from_pretrained(folder / "model")
    base = AutoModelForCausalLM.from_pretrained(TINY, dtype=torch.float32)
    return PeftModel.from_pretrained(base, folder / "adapter").eval(), AutoTokenizer.from_pretrained(folder / "adapter")


def plain_answer(model: PreTrainedModel, tokenizer: AutoTokenizer, prompt: str) -> str:
    """Answers one unpadded prompt greedily."""
    ids = [tokenizer.bos_token_id, *tokenizer(prompt, add_special_tokens=False)["input_ids"]]
    input_ids = torch.tensor([ids])
    output = model.generate(
        input_ids=input_ids, attention_mask=torch.ones_like(input_ids), max_new_tokens=6, do_sample=False
    )
    new = output[0] if output.shape[1] <= 6 else output[0, len(ids) :]
    return tokenizer.decode(new, skip_special_tokens=True)
