"""Real data and a small real pretrained model: what a user with files of their own gets."""

from pathlib import Path
from statistics import mean

import pytest
from rouge_score.rouge_scorer import RougeScorer
from tiny_runs import finish, read_lines, read_result

from forgetmenot.rouge import ROUGE_KEYS, rouge

SHARED = Path(__file__).resolve().parents[3] / "shared"
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not SHARED.is_dir(), reason=f"needs real data and models beside the project, in {SHARED}"),
]


def trained(place: Path, *arguments: str) -> Path:
    """Returns the folder of a finished run."""
    run = finish(["logger=none", "trainer=cpu", *arguments], place)
    assert run.code == 0, run.stderr
    return run.folder


def test_full_fine_tuning_of_a_real_small_llama_learns_sst2(tmp_path: Path) -> None:
    model = ("model=causal", f"model.path={SHARED / 'models/stories260K'}")
    folder = trained(tmp_path, "method=full", "epochs=1", "data=sst2", f"data.path={SHARED / 'data/sst2'}", *model)

    result = read_result(folder)
    majority = 912 / 1821  # negative rows of the test split

    assert result["tasks"]["sst2"]["after"]["accuracy"] >= majority + 0.08
    assert result["forgetting"]["tasks"]["text"] > 0  # it learns, and forgets


def test_rouge_equals_googles_on_every_dialogsum_test_row_with_its_three_references() -> None:
    records = read_lines(SHARED / "data/dialogsum/test.jsonl")
    references = [list(map(str, record["summaries"])) for record in records]
    answers = [
        *(group[0] for group in (*references[1:], references[0])),  # another dialogue's summary
        *(str(record["dialogue"]) for record in records),  # many lines, each with its own common subsequences
    ]
    scorer = RougeScorer(list(ROUGE_KEYS), use_stemmer=False)
    for answer, group in zip(answers, references * 2, strict=True):
        theirs = {
            f"{key}_{kind}": value
            for key, score in scorer.score_multi(group, answer).items()
            for kind, value in zip(("precision", "recall", "fmeasure"), score, strict=True)
        }
        assert rouge(answer, group) == pytest.approx(theirs, abs=1e-9)


def constant_rouge1(text: object, references: list[list[str]]) -> float:
    """Returns google's ROUGE-1 F of one summary given to every dialogue, the best over each one's references."""
    scorer = RougeScorer(["rouge1"], use_stemmer=False)
    return mean(max(scorer.score(other, str(text))["rouge1"].fmeasure for other in group) for group in references)


def test_lora_raises_rouge_on_dialogsum_above_the_base_and_above_constant_summaries(tmp_path: Path) -> None:
    """300 steps of a tiny model beat a usual constant summary, not yet the luckiest: docs/log.md has the figures."""
    data = ("data=dialogsum", f"data.path={SHARED / 'data/dialogsum'}", "data.references=summaries")
    folder = trained(tmp_path, "method=lora", *data, "data.retained=[]", "max_steps=300", "data.max_validation=20")

    scores = read_result(folder)["tasks"]["dialogsum"]
    references = [line["references"] for line in read_lines(folder / "predictions" / "dialogsum.jsonl")]

    assert len(references) == 500 and all(len(group) == 3 for group in references)
    assert scores["after"]["rouge1_fmeasure"] > scores["before"]["rouge1_fmeasure"] + 0.05
    constants = [line["summary"] for line in read_lines(SHARED / "data/dialogsum/train.jsonl")[:10]]
    assert scores["after"]["rouge1_fmeasure"] > mean(constant_rouge1(text, references) for text in constants)
    assert scores["after"]["loss"] < scores["before"]["loss"]
