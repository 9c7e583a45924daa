"""A page of a great many runs."""

import json
import re
from pathlib import Path

import pytest
from written_runs import write_run

from forgetmenot.report.page import write_page
from forgetmenot.report.runs import find_runs, group_runs
from forgetmenot.result import RunResult

TASKS = ("names", "party", "fact_or_opinion", "dialogue")


def write_long_run(folder: Path, *, rank: int) -> None:
    """Writes a run with four retained tasks, answers of a line each, and 400 validations."""
    write_run(folder, "method=lora", f"method.rank={rank}", after=0.5 + rank / 1500)
    result = RunResult.read(folder)
    assert result.tasks is not None and result.forgetting is not None
    for number, task in enumerate(TASKS):
        result.tasks[task] = {**result.tasks["names"]}
        result.forgetting["tasks"][task] = 0.1 * number + rank / 999
        said = {"prompt": f"{task}?", "references": ["Ada"], "before": "Ada", "after": f"{rank} " + "word " * 40}
        (folder / "predictions" / f"{task}.jsonl").write_text((json.dumps(said) + "\n") * 10)
    result.write(folder)
    steps = [{"step": step, "val/accuracy": 1 / (1 + step + rank / 7)} for step in range(400)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps))


@pytest.mark.slow
def test_a_page_of_500_runs_has_them_all_in_its_table_and_6_mb_at_most(tmp_path: Path) -> None:
    for rank in range(1, 501):
        write_long_run(tmp_path / str(rank), rank=rank)
    runs, others = find_runs([tmp_path])

    write_page(tmp_path / "page.html", group_runs(runs), others)

    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    (table,) = re.findall(r'<table class="sorts">.*?</table>', text, re.DOTALL)
    labels = re.findall(r"<tr><td>([^<]*)</td>", table)
    assert sorted(labels) == sorted(f"lora method.rank={rank}" for rank in range(1, 501))
    assert (tmp_path / "page.html").stat().st_size <= 6_000_000
    assert "The first run of each of the first 50 groups" in text
