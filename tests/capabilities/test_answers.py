"""What is kept of the probes: every row and column, no fault, a reason in one sentence, and a page made of it."""

import json
from pathlib import Path

import pytest

from capabilities.__main__ import differences, main
from capabilities.answer import YES, Answer, NotYes
from capabilities.bench import refusal
from capabilities.choice import cells_of, seed_of_commit, share
from capabilities.probes import PROBES
from capabilities.rows import rows
from capabilities.table import DOCS, Capabilities, Row, Whole
from forgetmenot.config.paths import choices

REFUSED = Answer(kind="refused", reason="method must be another, got lora; method=full works")
IDLE = Answer(kind="idle", reason="settings without effect: replay; method=lora takes them")
ROW = Row(code="1", probed="2026-01-02", cells={"causal": YES, "ewc": REFUSED, "kl": REFUSED, "replay": IDLE})
WHOLE = Whole(date="2026-01-01", minutes=12.3, cores=2, versions={"torch": "2"}, command="make capabilities")
KEPT = Capabilities(whole=WHOLE, rows={"lora": ROW}, columns={"kl": "2"}, shared="3")


def test_what_is_kept_has_every_method_and_every_column() -> None:
    known = Capabilities.read()
    assert list(known.rows) == rows()
    assert all(list(row.cells) == list(PROBES) for row in known.rows.values())


def test_every_regularizer_has_its_column() -> None:
    assert set(choices("regularizer")) <= set(PROBES)


def test_what_is_kept_holds_no_fault_and_every_reason_is_one_sentence_without_a_path() -> None:
    answers = [answer for row in Capabilities.read().rows.values() for answer in row.cells.values()]
    assert {answer.kind for answer in answers} == {"yes", "refused", "idle"}
    for answer in answers:
        assert bool(answer.reason) == (answer.kind != "yes")
        assert "\n" not in answer.reason and "/tmp" not in answer.reason and "Traceback" not in answer.reason


def test_a_reason_says_what_to_use_instead() -> None:
    answers = [answer for row in Capabilities.read().rows.values() for answer in row.cells.values()]
    assert not [answer.reason for answer in answers if answer.reason and ";" not in answer.reason]


def test_the_page_is_made_of_what_is_kept() -> None:
    assert (DOCS / "capabilities.md").read_text(encoding="utf-8") == Capabilities.read().markdown()


def test_the_excerpt_in_readme_is_one() -> None:
    known = Capabilities.read()
    table = (DOCS.parent / "README.md").read_text(encoding="utf-8").partition("docs/capabilities.md has")[2]
    head, _, *lines = [line.strip("| ").split(" | ") for line in table.split("\n\n")[1].splitlines()]
    assert len(lines) == 3
    for method, *shown in lines:
        assert shown == [known.rows[method].cells[column].kind for column in head[1:]]


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    KEPT.write(tmp_path)
    assert Capabilities.read(tmp_path) == KEPT
    assert json.loads((tmp_path / "capabilities.json").read_text())["rows"]["lora"]["cells"]["causal"] == "yes"
    assert Capabilities.read(tmp_path / "elsewhere") == Capabilities(whole=None, rows={})


def test_the_page_numbers_each_reason_once_and_tells_when_where_and_how_long() -> None:
    page = KEPT.markdown()
    assert "| lora | yes | (1) | (1) | *idle* (2) |" in page
    assert f"1. {REFUSED.reason}\n2. {IDLE.reason}\n" in page
    assert "2026-01-01 by `make capabilities` in 12 minutes (0.2 hours) on 2 cores; torch 2." in page
    assert "Probed again since: lora (2026-01-02)." in page


def test_a_difference_names_the_cell_and_both_answers() -> None:
    assert differences(KEPT, {("lora", "causal"): YES, ("lora", "ewc"): REFUSED}) == []
    (told,) = differences(KEPT, {("lora", "ewc"): YES})
    assert told == f"lora, ewc: refused: {REFUSED.reason} is kept, the probe came to yes"
    (told,) = differences(KEPT, {("new", "ewc"): YES})
    assert told.startswith("new, ewc: nothing is kept")


def test_a_share_is_one_cell_of_so_many_and_follows_from_the_seed() -> None:
    cells = cells_of(rows())
    drawn = share(20, seed=3)
    assert drawn == share(20, seed=3) != share(20, seed=4)
    assert len(set(drawn)) == len(drawn) == -(-len(cells) // 20) and set(drawn) <= set(cells)
    assert set().union(*(share(20, seed=seed) for seed in range(200))) == set(cells), "every cell has its turn"
    assert seed_of_commit() == seed_of_commit() >= 0


@pytest.mark.parametrize("arguments", [["--only", "lroa"], ["--share", "20"], ["--share", "0", "--check"]])
def test_a_choice_that_cannot_be_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert "must be" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("code", "stderr"),
    [
        (1, "Traceback (most recent call last):\n  File ...\nZeroDivisionError: division by zero\n"),
        (1, "error: one sentence\nerror: and another\n"),
        (1, "KeyError: 'lora'\n"),
        (2, "error: another exit code\n"),
        (-9, ""),
        (None, ""),
    ],
)
def test_a_command_that_ends_otherwise_than_well_or_with_its_one_sentence_is_a_fault(
    code: int | None, stderr: str
) -> None:
    with pytest.raises(NotYes, match=rf"^fault: exit code {code} and \d lines on stderr, the last: "):
        refusal(code, stderr)


def test_a_command_that_refuses_does_so_in_one_sentence_and_one_that_ends_well_refuses_nothing() -> None:
    assert refusal(1, "error: rank must be at least 1, got 0\n") == "rank must be at least 1, got 0"
    assert refusal(0, "whatever it warned of\n") is None
