"""`evaluate` and `ask` as their users call them: a finished run, a plain model, other tasks, shots, mistakes."""

import json
import shutil
from pathlib import Path
from statistics import mean

import pytest
from omegaconf import OmegaConf
from tiny_runs import SCORED, Finished, finish, read_lines, read_result
from transformers import AutoModelForCausalLM, AutoTokenizer


@pytest.fixture(scope="module")
def evaluated(finished_run: Finished, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """An evaluation of the finished run on its own tasks."""
    place = tmp_path_factory.mktemp("evaluated")
    done = finish([f"run={finished_run.folder}"], place, command="evaluate")
    assert done.code == 0, done.stderr
    return done


def test_on_the_runs_own_tasks_it_repeats_the_runs_numbers(finished_run: Finished, evaluated: Finished) -> None:
    before, after = read_result(finished_run.folder), read_result(evaluated.folder)
    for key in (*SCORED, "method"):
        assert after[key] == before[key], key
    for file in (finished_run.folder / "predictions").iterdir():
        assert read_lines(evaluated.folder / "predictions" / file.name) == read_lines(file)


def test_it_writes_nothing_into_the_run_that_it_reads(finished_run: Finished, tmp_path: Path) -> None:
    before = {file: file.read_bytes() for file in finished_run.folder.rglob("*") if file.is_file()}
    assert finish([f"run={finished_run.folder}"], tmp_path, command="evaluate").code == 0
    assert {file: file.read_bytes() for file in finished_run.folder.rglob("*") if file.is_file()} == before


def mood_of(folder: Path) -> list[str]:
    """Returns what makes `evaluate` ask for the mood of the texts in a folder."""
    return [
        "data=local", "data.name=mood", f"data.path={folder}", "data.prompt=text", "data.completion=label",
        "data.max_new_tokens=2", "data.retained=[]", "trainer=cpu", "max_length=64",
    ]  # fmt: skip


def test_a_plain_model_is_scored_alone(tiny_model: Path, tiny_data: Path, tmp_path: Path) -> None:
    done = finish([f"run={tiny_model}", *mood_of(tiny_data)], tmp_path, command="evaluate")

    assert done.code == 0, done.stderr
    result = read_result(done.folder)
    assert result["tasks"]["mood"]["after"] is None and result["tasks"]["mood"]["before"]["loss"] > 0
    assert (result["method"], result["gain"], result["forgetting"]) == (None, None, None)
    assert {line["after"] for line in read_lines(done.folder / "predictions" / "mood.jsonl")} == {None}
    assert "mood" in done.stdout and "The evaluation lies in" in done.stdout


CHAT = (
    "{% for m in messages %}{{ bos_token }}{{ m.role }}:{{ m.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}{{ bos_token }}assistant:{% endif %}"
)


def test_a_plain_chat_model_is_scored_and_asked_in_its_template(
    tiny_model: Path, tiny_data: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_model, tmp_path / "chatty")
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(tmp_path / "chatty")
    asks = ["run=chatty", "model.chat=true"]

    scored = finish([*asks, *mood_of(tiny_data), "precision=fp32"], tmp_path, command="evaluate")
    asked = finish([*asks, "prompt=a fine film 5", "max_new_tokens=2"], tmp_path, command="ask")

    assert (scored.code, asked.code) == (0, 0), scored.stderr + asked.stderr
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    answers, lengths = [], []
    for line in read_lines(scored.folder / "predictions" / "mood.jsonl"):
        question = [{"role": "user", "content": line["prompt"].strip()}]
        asked_as = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt")
        said = model.generate(**asked_as, do_sample=False, max_new_tokens=2)[0, asked_as.input_ids.shape[1] :]
        answers.append((line["before"], tokenizer.decode(said, skip_special_tokens=True)))
        lengths.append(asked_as.input_ids.shape[1])
    assert [ours for ours, _ in answers] == [theirs for _, theirs in answers]
    assert answers[0][1].strip()
    assert read_result(scored.folder)["cost"]["prompt_tokens_per_example"] == mean(lengths)
    assert answers[0][1] in asked.stdout


def test_a_file_of_test_examples_alone_is_enough(finished_run: Finished, tiny_data: Path, tmp_path: Path) -> None:
    (tmp_path / "held_out").mkdir()
    (tmp_path / "held_out" / "test.jsonl").write_bytes((tiny_data / "test.jsonl").read_bytes())
    data = ["data=local", "data.name=held_out", "data.path=held_out", "data.prompt=text", "data.completion=label"]
    done = finish([f"run={finished_run.folder}", *data, "data.retained=[]"], tmp_path, command="evaluate")
    assert done.code == 0, done.stderr
    result = read_result(done.folder)
    assert result["data"]["test_examples"] == result["tasks"]["held_out"]["examples"] == 4
    assert result["data"]["train_examples"] == 0


def test_it_can_be_repeated_from_its_config(evaluated: Finished, tmp_path: Path) -> None:
    again = finish(["--config-dir", str(evaluated.folder), "--config-name", "config"], tmp_path, command="evaluate")
    assert again.code == 0, again.stderr
    assert read_result(again.folder)["tasks"] == read_result(evaluated.folder)["tasks"]


def test_shots_stand_before_each_prompt_the_same_for_all_and_never_from_test(
    finished_run: Finished, tiny_data: Path, tmp_path: Path
) -> None:
    done = finish([f"run={finished_run.folder}", "num_shots=2"], tmp_path, command="evaluate")
    assert done.code == 0, done.stderr
    train = [json.loads(line) for line in (tiny_data / "train.jsonl").read_text().splitlines()]
    shots = {f"{record['text']}\n{record['label']}" for record in train}
    beginnings = set()
    for line in read_lines(done.folder / "predictions" / "mood.jsonl"):
        *shown, _ = line["prompt"].split("\n\n")
        assert len(shown) == 2 and set(shown) <= shots
        beginnings.add(tuple(shown))
    assert len(beginnings) == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "run must be given"),
        (["run=nowhere/at/all"], "model.path must be an existing folder or a hub id, got nowhere/at/all"),
        (["run={run}", "num_shots=17"], "num_shots must be at least 0 and at most the 16 training examples of mood"),
        (["run={empty}"], "run must be a finished run (result.json) or a model (config.json)"),
        (["run={run}", "data=sentimnet"], "data must be one of"),
        (["run={run}", "nmu_shots=1"], "did you mean num_shots?"),
        (["run={run}", "model.chat=true"], "model.chat must be false, as in the run {run}, got true"),
        (["run={model}", "model.chat=maybe"], "model.chat must be true or false or null, got maybe"),
        (["run={model}", "model.chat=true"], "model.chat must be false for a tokenizer without a chat template"),
    ],
)
def test_a_mistake_is_told_in_a_sentence(
    finished_run: Finished, tiny_model: Path, tmp_path: Path, arguments: list[str], sentence: str
) -> None:
    (tmp_path / "empty").mkdir()
    places = {"run": finished_run.folder, "model": tiny_model, "empty": tmp_path / "empty"}
    done = finish([word.format(**places) for word in arguments], tmp_path, command="evaluate")
    assert done.code == 1
    assert sentence.format(**places) in done.sentence


def test_a_run_without_weights_is_refused(finished_run: Finished, tmp_path: Path) -> None:
    for name in ("config.yaml", "result.json"):
        (tmp_path / name).write_bytes((finished_run.folder / name).read_bytes())
    done = finish([f"run={tmp_path}"], tmp_path, command="evaluate")
    assert done.code == 1
    assert "run must be a run that ended well" in done.sentence


@pytest.mark.parametrize("prompt", ["a fine film 0", 'is it "good", or {not}: [1], $x?', "back\\slash"])
def test_ask_shows_what_base_and_tuned_model_answer(finished_run: Finished, tmp_path: Path, prompt: str) -> None:
    done = finish([f"run={finished_run.folder}", f"prompt={prompt}"], tmp_path, command="ask")
    assert done.code == 0, done.stderr
    assert "causal" in done.stdout and "lora on mood" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_ask_answers_as_the_run_did(finished_run: Finished, tmp_path: Path) -> None:
    line = read_lines(finished_run.folder / "predictions" / "mood.jsonl")[0]
    done = finish([f"run={finished_run.folder}", f"prompt={line['prompt'].strip()}"], tmp_path, command="ask")
    assert line["after"].strip() in done.stdout


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("evaluate", ["run=run"]),
        ("ask", ["run=run", "prompt=a fine film"]),
        ("export", ["run=run", "to=out"]),
        ("train", ["model.path=run"]),
        ("train", ["resume=run"]),
    ],
)
def test_a_run_has_its_models_own_code_run_only_where_the_command_line_says_so(
    finished_run: Finished, tiny_arguments: list[str], tmp_path: Path, command: str, words: list[str]
) -> None:
    run = shutil.copytree(finished_run.folder, tmp_path / "run")
    settings = OmegaConf.load(run / "config.yaml")
    settings.model.trust_remote_code = True
    OmegaConf.save(settings, run / "config.yaml")
    if words == ["resume=run"]:
        (run / "result.json").unlink()
    if words == ["model.path=run"]:
        words = [*tiny_arguments, *words]
    refused = finish(words, tmp_path, command=command)
    assert refused.code == 1
    assert refused.sentence.startswith("error: model.trust_remote_code must be true on the command line too, since ")
    done = finish([*words, "model.trust_remote_code=true"], tmp_path, command=command)
    assert done.code == 0, done.stderr


def test_ask_needs_no_data_set(finished_run: Finished, tiny_data: Path, tmp_path: Path) -> None:
    shutil.copytree(finished_run.folder, tmp_path / "run")
    settings = (tmp_path / "run" / "config.yaml").read_text()
    assert str(tiny_data) in settings
    (tmp_path / "run" / "config.yaml").write_text(settings.replace(str(tiny_data), "/nowhere"))
    done = finish(["run=run", "prompt=a fine film"], tmp_path, command="ask")
    assert done.code == 0, done.stderr


def test_ask_takes_a_plain_model_that_reads_less_than_runs_do_by_default(tiny_model: Path, tmp_path: Path) -> None:
    assert json.loads((tiny_model / "config.json").read_text())["max_position_embeddings"] == 128
    done = finish([f"run={tiny_model}", "prompt=a fine film", "max_new_tokens=2"], tmp_path, command="ask")
    assert done.code == 0, done.stderr
    long = finish([f"run={tiny_model}", "prompt=" + "a fine film " * 80], tmp_path, command="ask")
    assert "prompt must fit into max_length=128 with 32 new tokens" in long.sentence


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["prompt=a fine film", "max_new_tokens=600"],
            "max_new_tokens must be at most 56 within max_length=64",
        ),
        (["prompt=" + "a fine film " * 40], "prompt must fit into max_length=64 with 2 new tokens"),
    ],
)
def test_ask_refuses_what_does_not_fit_beside_its_answer(
    finished_run: Finished, tmp_path: Path, words: list[str], said: str
) -> None:
    asked = finish([f"run={finished_run.folder}", *words], tmp_path, command="ask")
    assert asked.code == 1
    assert said in asked.sentence
