"""`export` as its users call it: the plain folder answers as the run did, and what cannot be one is refused."""

import json
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from tiny_runs import Finished, Train, finish, read_lines, read_result
from transformers import AutoModelForCausalLM, AutoTokenizer


@pytest.fixture(scope="module")
def exported(finished_run: Finished, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The finished run's model, written into the folder `plain`."""
    place = tmp_path_factory.mktemp("exported")
    done = finish([f"run={finished_run.folder}", "to=plain"], place, command="export")
    assert done.code == 0, done.stderr
    return done


def test_plain_transformers_answers_with_it_as_the_run_did(finished_run: Finished, exported: Finished) -> None:
    model = AutoModelForCausalLM.from_pretrained(exported.place / "plain").eval()
    tokenizer = AutoTokenizer.from_pretrained(exported.place / "plain")

    answers = []
    for line in (lines := read_lines(finished_run.folder / "predictions" / "mood.jsonl")):
        ids = tokenizer(str(line["prompt"]))["input_ids"]
        told = model.generate(torch.tensor([ids]), do_sample=False, max_new_tokens=2)[0, len(ids) :]
        answers.append(tokenizer.decode(told, skip_special_tokens=True))

    assert model.dtype == torch.float32
    assert answers == [line["after"] for line in lines]


def test_evaluate_scores_it_as_the_run_scored_its_adapted_model(
    finished_run: Finished, exported: Finished, tiny_arguments: list[str], tmp_path: Path
) -> None:
    data = [word for word in tiny_arguments if word.startswith(("data", "trainer=", "max_length=", "precision="))]
    done = finish([f"run={exported.place / 'plain'}", *data], tmp_path, command="evaluate")
    assert done.code == 0, done.stderr
    scored = read_result(done.folder)["tasks"]["mood"]["before"]
    assert scored == pytest.approx(read_result(finished_run.folder)["tasks"]["mood"]["after"], rel=1e-5)


def test_it_says_where_the_model_lies_and_how_to_load_it_and_leaves_nothing_else(exported: Finished) -> None:
    assert "The model lies in plain, " in exported.stdout
    assert 'AutoModelForCausalLM.from_pretrained("plain"), AutoTokenizer.from_pretrained("plain")' in exported.stdout
    assert [file.name for file in exported.place.iterdir()] == ["plain"]


def test_a_run_is_exported_without_its_data(finished_run: Finished, tmp_path: Path) -> None:
    run = tmp_path / "run"
    for file in (file for file in finished_run.folder.rglob("*") if file.is_file()):
        (run / file.relative_to(finished_run.folder)).parent.mkdir(parents=True, exist_ok=True)
        (run / file.relative_to(finished_run.folder)).write_bytes(file.read_bytes())
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("tiny_data", "gone"))
    assert finish(["run=run", "to=plain"], tmp_path, command="export").code == 0


def test_full_fine_tuning_is_exported_as_it_was_saved(train: Train, tmp_path: Path) -> None:
    run = train("method=full", "max_steps=1").folder
    assert finish([f"run={run}", "to=plain"], tmp_path, command="export").code == 0
    saved, plain = (AutoModelForCausalLM.from_pretrained(at).state_dict() for at in (run / "model", tmp_path / "plain"))
    assert all(torch.equal(saved[name], weight) for name, weight in plain.items())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["run={run}"], "to must be given"),
        (["run={run}", "to={run}"], "to must be a new or an empty folder"),
        (["run={model}", "to=plain"], "run must be a finished run, got"),
        (["run={failed}", "to=plain"], "run must be a run that ended well, got {failed}, which failed"),
        (
            ["run={prompted}", "to=plain"],
            "run must be one that can be merged into its base, got zero_shot: it leaves the",
        ),
    ],
)
def test_a_mistake_is_told_in_a_sentence(
    finished_run: Finished, tiny_model: Path, tmp_path: Path, arguments: list[str], sentence: str
) -> None:
    places = {"run": finished_run.folder, "model": tiny_model, "failed": tmp_path / "a", "prompted": tmp_path / "b"}
    facts, settings = read_result(finished_run.folder), OmegaConf.load(finished_run.folder / "config.yaml")
    for folder, status in (("a", "failed"), ("b", "complete")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "result.json").write_text(json.dumps({**facts, "status": status}))
        OmegaConf.save(settings, tmp_path / folder / "config.yaml")
        target = "forgetmenot.method.shots.Shots"
        settings.method = {"_target_": target, "name": "zero_shot", "lr": None, "num_shots": 0}

    done = finish([word.format(**places) for word in arguments], tmp_path, command="export")

    assert done.code == 1
    assert sentence.format(**places) in done.sentence
    assert not (tmp_path / "plain").exists()
