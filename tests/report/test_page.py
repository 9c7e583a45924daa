"""The page: one file, whatever stands in runs shows as text."""

import json
import re
from pathlib import Path

import pytest
from written_runs import write_run

from forgetmenot.report import page
from forgetmenot.report.page import write_page
from forgetmenot.report.runs import find_runs, group_runs
from forgetmenot.result import RunResult

EVIL = "</td></script><script>alert('x')</script><img src=x onerror=alert(1)>"


def written(place: Path) -> str:
    """Returns the page of the runs below a folder."""
    runs, others = find_runs([place])
    write_page(place / "page.html", group_runs(runs), others)
    return (place / "page.html").read_text(encoding="utf-8")


def without_plotly(text: str) -> str:
    """Returns the page less plotly's own bundle."""
    start = text.index("<script>")
    return text[:start] + text[text.index('<script type="application/json"', start) :]


def test_a_page_is_one_file_of_at_most_6_mb_that_asks_for_nothing(tmp_path: Path) -> None:
    for method in ("lora", "full"):
        write_run(tmp_path / method, f"method={method}")
    text = written(tmp_path)
    assert len(text.encode()) < 6_000_000
    assert not re.findall(r'(?:src|href)="?(?:https?:)?//', without_plotly(text))


def test_answers_names_and_errors_that_hold_markup_show_as_text(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "method=lora")
    line = {"prompt": EVIL, "references": [EVIL], "before": EVIL, "after": EVIL}
    (tmp_path / "a" / "predictions" / "names.jsonl").write_text(json.dumps(line) + "\n")
    write_run(tmp_path / "b", f"method={EVIL.replace('=', '')}")
    write_run(tmp_path / "c", "method=full", status="failed")
    result = RunResult.read(tmp_path / "c")
    result.error = EVIL
    result.write(tmp_path / "c")

    text = without_plotly(written(tmp_path))

    assert "<img" not in text and "<script>alert" not in text
    assert text.count("&lt;img src") >= 5
    figures = re.search(r'id="figures">(.*?)</script>', text, re.DOTALL)
    assert figures is not None and json.loads(figures[1])


def test_the_best_gain_and_what_does_not_differ_from_it_are_marked(tmp_path: Path) -> None:
    for method, right in (("lora", 90), ("full", 89), ("prompt", 50)):
        write_run(tmp_path / method, f"method={method}", after=right / 100)
        lines = [
            {"prompt": str(i), "references": ["y"], "before": "n", "after": "y" if (i * 37) % 100 < right else "n"}
            for i in range(100)
        ]
        file = tmp_path / method / "predictions" / "mood.jsonl"
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    text = written(tmp_path)
    marked = re.findall(r'class="best">([^<]*)<', text)
    assert [figure for figure in marked if figure != "+0.500"] == ["+0.590", "+0.600"]  # the gains
    assert marked.count("+0.500") == 3  # what all have forgotten of `names` alike


@pytest.mark.parametrize(
    ("runs", "told"), [(1, "1 complete run in 1 group."), (2, "2 complete runs in 2 groups, which differ by more")]
)
def test_runs_and_groups_are_counted_in_words_for_one_and_for_several(tmp_path: Path, runs: int, told: str) -> None:
    for number in range(runs):
        write_run(tmp_path / str(number), "method=lora", f"rank={number}")
    text = written(tmp_path)
    assert told in text
    assert f"<title>Forgetmenot: {runs} run{'s' if runs > 1 else ''}</title>" in text


def test_what_could_not_be_tested_is_named_and_only_its_best_is_marked(tmp_path: Path) -> None:
    for method, after in (("lora", 0.8), ("full", 0.79), ("prompt", 0.8)):
        write_run(tmp_path / method, f"method={method}", after=after)
    text = written(tmp_path)
    (told,) = re.findall(r"Not tested, so that only the best figure is green[^:]*: ([^(]*) \(", text)
    assert told == "gain"  # nobody left answers to it; all forgot `names` alike, which needs no test
    marked = re.findall(r'class="best">([^<]*)<', text)
    assert marked.count("+0.500") == 5 and "+0.490" not in marked  # two gains, and what all three lost


def test_where_all_was_tested_the_page_says_nothing_of_it(tmp_path: Path) -> None:
    write_run(tmp_path / "lora", "method=lora")
    assert "Not tested" not in written(tmp_path)


def test_runs_that_failed_or_are_half_written_are_listed_as_such(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "method=lora")
    write_run(tmp_path / "b", "method=lora", seed=1, status="interrupted")
    text = written(tmp_path)
    assert "Not compared" in text and f"{tmp_path / 'b'}: interrupted" in text


def test_other_hardware_is_told_in_the_table(tmp_path: Path) -> None:
    for number, device in enumerate(("a CPU", "a GPU")):
        write_run(tmp_path / str(number), "method=lora", f"method.rank={number}")
        result = RunResult.read(tmp_path / str(number))
        result.hardware = {"device": device, "devices": 1, "threads": 2, "precision": "bf16"}
        result.write(tmp_path / str(number))
    assert "<button>hardware</button>" in written(tmp_path)


def test_where_rouge_is_the_score_the_page_says_what_it_does_not_see(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "method=lora")
    assert "It is not cold" not in written(tmp_path)
    result = RunResult.read(tmp_path / "a")
    assert result.tasks is not None
    scores = [{"rouge1_fmeasure": value} for value in (0.1, 0.2)]
    result.tasks["mood"] |= {"metric": "rouge1_fmeasure", "before": scores[0], "after": scores[1]}
    result.write(tmp_path / "a")
    assert "It is not cold" in written(tmp_path)


def test_without_plotly_one_sentence_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(tmp_path / "a", "method=lora")
    monkeypatch.setattr(page, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"^--html needs plotly, got none; pip install 'forgetmenot-llm\[report\]'"):
        written(tmp_path)
    assert not (tmp_path / "page.html").exists()
