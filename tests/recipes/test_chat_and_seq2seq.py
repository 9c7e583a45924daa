"""Encoder-decoders and chat models from end to end: trained, evaluated and asked as any causal model is."""

from pathlib import Path
from statistics import mean

import pytest
from tiny_folders import CHAT_TEMPLATE, write_model
from tiny_runs import Finished, finish, read_lines, read_result
from transformers import AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase

from forgetmenot.data.chat import Chat

METHODS = ["full", "lora", "prompt", "regularized"]
FAMILIES = ["t5", "flan_t5", "bart"]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models, one of each family, and a causal one that chats."""
    folder = tmp_path_factory.mktemp("models")
    for family in (*FAMILIES, "qwen2"):
        write_model(folder / family, family, ["a fine film positive", "a dull film negative"])
    tokenizer = AutoTokenizer.from_pretrained(folder / "qwen2")
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(folder / "qwen2")
    return folder


def told_thrice(arguments: list[str], place: Path) -> tuple[Finished, Finished, Finished]:
    """Trains, evaluates the run, and asks it; each has to end well."""
    run = finish(["data=sentiment", "data.retained=[]", "max_steps=3", "epochs=null", "max_length=96", "logger=none",
                  "trainer=cpu", "precision=bf16", "data.max_validation=8", *arguments], place)  # fmt: skip
    assert run.code == 0, run.stderr
    evaluated = finish([f"run={run.folder}", "trainer=cpu"], place / "evaluation", command="evaluate")
    asked = finish([f"run={run.folder}", "prompt=a fine film", "max_new_tokens=3"], place / "asked", command="ask")
    assert (evaluated.code, asked.code) == (0, 0), evaluated.stderr + asked.stderr
    return run, evaluated, asked


def with_rooms(place: Path) -> Path:
    """Returns `place` with a folder for each command that reads a run."""
    for name in ("evaluation", "asked"):
        (place / name).mkdir()
    return place


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return with_rooms(tmp_path)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", FAMILIES)
def test_an_encoder_decoder_is_trained_evaluated_and_asked_as_a_causal_model_is(
    written: Path, place: Path, family: str, method: str
) -> None:
    run, evaluated, asked = told_thrice(["model=seq2seq", f"model.path={written / family}", f"method={method}"], place)

    result, again = read_result(run.folder), read_result(evaluated.folder)
    assert result["status"] == "complete"
    assert result["model"]["architecture"] == again["model"]["architecture"] == "seq2seq"
    assert 0 < result["method"]["trainable_percent"] <= 100
    assert (result["method"]["trainable_percent"] == 100) == (method in ("full", "regularized"))
    task = result["tasks"]["sentiment"]
    assert task["after"]["loss"] != task["before"]["loss"]
    assert again["tasks"]["sentiment"]["after"] == task["after"]
    assert method in asked.stdout


def test_a_chat_model_reads_its_template_in_training_and_evaluation_alike(written: Path, place: Path) -> None:
    arguments = ["model=causal", f"model.path={written / 'qwen2'}", "method=full"]
    arguments.append("max_length=192")  # holds every prompt in its template whole
    run, evaluated, _ = told_thrice([*arguments, "model.chat=true"], place)
    (place / "plain").mkdir()
    plain, _, _ = told_thrice(arguments, with_rooms(place / "plain"))

    chat, alone = read_result(run.folder), read_result(plain.folder)
    assert read_result(evaluated.folder)["tasks"]["sentiment"]["after"] == chat["tasks"]["sentiment"]["after"]
    tokenizer = AutoTokenizer.from_pretrained(written / "qwen2")
    prompts = [line["prompt"] for line in read_lines(run.folder / "predictions" / "sentiment.jsonl")]
    assert chat["data"]["truncated"] == alone["data"]["truncated"] == 0
    assert chat["cost"]["prompt_tokens_per_example"] == mean(len(templated(tokenizer, each)) for each in prompts)
    with_bos = [tokenizer.bos_token + each for each in prompts]
    assert alone["cost"]["prompt_tokens_per_example"] == mean(len(tokenizer(each).input_ids) for each in with_bos)
    settings = GenerationConfig.from_pretrained(run.folder / "model")
    assert Chat.of(tokenizer).end in settings.eos_token_id


def templated(tokenizer: PreTrainedTokenizerBase, prompt: str) -> list[int]:
    """Returns transformers' own ids of a prompt in its template."""
    question = [{"role": "user", "content": prompt.strip()}]
    return tokenizer.apply_chat_template(question, add_generation_prompt=True, return_dict=False)
