"""What the embedded model is trained from: made anew from the public sets, it holds nothing that it is tested on."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
SHARED = TOP.parent / "shared" / "data"
ASSETS = TOP / "src" / "forgetmenot" / "assets" / "data"
RETAINED = ("names", "party", "fact_or_opinion", "text")
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not SHARED.is_dir(), reason=f"needs real data beside the project, in {SHARED}"),
]


@pytest.fixture(scope="module")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that pretraining/prepare.py writes."""
    out = tmp_path_factory.mktemp("pretrain_tiny")
    command = [sys.executable, str(TOP / "pretraining" / "prepare.py"), str(SHARED), "--out", str(out)]
    subprocess.run(command, check=True, capture_output=True)
    return out


def rows(path: Path) -> Iterator[dict[str, object]]:
    yield from (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())


def letters(text: str) -> str:
    """Returns the letters and digits alone, in small: how two texts are compared."""
    return re.sub(r"[^a-z0-9]", "", text.lower())


def asked(row: dict[str, object]) -> str:
    """Returns what a row of a public or embedded set is about."""
    if "tokens" in row:
        return letters("".join(map(str, row["tokens"])))  # type: ignore[call-overload]
    return letters(
        str(next(row[name] for name in ("text", "sentence", "question", "instruction", "dialogue") if name in row))
    )


def trained_on(mixture: Path) -> tuple[set[str], set[str]]:
    """Returns the prompts, with and without their last line, and the plain texts and completions."""
    prompts: set[str] = set()
    texts: set[str] = set()
    for row in rows(mixture / "data" / "train.jsonl"):
        prompt = str(row["prompt"])
        prompts |= {letters(prompt), letters(prompt.rpartition("\n")[0])}
        texts.add(letters(str(row["completion"])))
    return prompts - {""}, texts - {""}


def test_no_sst2_sentence_no_sentiment_row_and_no_test_row_is_in_it(mixture: Path) -> None:
    prompts, texts = trained_on(mixture)
    sst2 = {asked(row) for split in ("train", "validation", "test") for row in rows(SHARED / "sst2" / f"{split}.jsonl")}
    kept_out = ("sentiment", "dialogue")  # the sets that the base knows nothing of
    unseen = {asked(row) for name in kept_out for path in (ASSETS / name).glob("*.jsonl") for row in rows(path)}
    held_out = {asked(row) for name in RETAINED for row in rows(ASSETS / name / "test.jsonl")}
    sources = ("wikigold", "broad_twitter", "banking77", "restaurant8k", "subjectivity", "gsm8k", "llm_from_scratch")
    tests = {asked(row) for name in sources for row in rows(SHARED / name / "test.jsonl")}

    assert len(prompts) > 100_000
    assert prompts.isdisjoint(sst2 | unseen | held_out | tests)
    assert texts.isdisjoint(sst2 | unseen | held_out)


def test_no_chapter_of_a_held_out_book_is_in_it(mixture: Path) -> None:
    _, texts = trained_on(mixture)
    chapters = [asked(row) for row in rows(SHARED / "childrens_books" / "test.jsonl")]
    pieces = {chapter[start : start + 200] for chapter in chapters for start in range(0, len(chapter), 1000)}
    pieces = {piece for piece in pieces if len(piece) == 200}
    books = "\n".join(text for text in texts if len(text) > 1000)

    assert len(pieces) > 300
    assert not [piece for piece in pieces if piece in books]


def test_the_packages_tokenizer_is_the_one_that_it_trains(mixture: Path) -> None:
    made = json.loads((mixture / "model" / "tokenizer.json").read_text(encoding="utf-8"))
    shipped = json.loads((ASSETS.parent / "tiny" / "tokenizer.json").read_text(encoding="utf-8"))
    assert made["model"]["vocab"] == shipped["model"]["vocab"]
