"""Lines of JSON that runs left: read whole, or told of where they were cut off."""

import json
from pathlib import Path

import pytest
from written_runs import write_run

from forgetmenot.cli.compare import main as compare
from forgetmenot.report.lines import cut_files, read_metrics, read_predictions
from forgetmenot.report.runs import find_runs, group_runs


def cut(file: Path, text: str, *, by: int) -> Path:
    """Writes a file that ends so many bytes too early."""
    file.write_bytes(text.encode()[:-by])
    return file


@pytest.mark.parametrize("by", [1, 2, 4, 40])
def test_what_stands_before_a_line_that_was_cut_off_is_read(tmp_path: Path, by: int) -> None:
    lines = [{"step": step, "val/accuracy": step / 4, "name": "é" * 9} for step in range(3)]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    file = cut(tmp_path / "metrics.jsonl", text, by=by)
    read = list(read_metrics(file, holding="val/accuracy"))
    assert read == lines[: 3 if by == 1 else 2]  # a newline alone was no loss


def test_a_damaged_line_with_others_behind_it_is_one_sentence_with_its_number(tmp_path: Path) -> None:
    file = tmp_path / "names.jsonl"
    file.write_text('{"prompt": "a"}\n{"prompt": \n{"prompt": "c"}\n')
    with pytest.raises(
        ValueError, match=r"names\.jsonl must hold an object of JSON on every line, got none on line 2$"
    ):
        list(read_predictions(file))


@pytest.mark.parametrize("name", ["metrics.jsonl", "predictions/names.jsonl", "predictions/mood.jsonl"])
def test_a_page_is_made_of_runs_with_a_cut_file_which_is_named_on_it_and_in_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    prediction = {"prompt": "é?", "references": ["Ada"], "before": "Ada", "after": "Ada"}
    steps = [{"step": step, "val/accuracy": 0.5} for step in (1, 2, 3)]
    for method in ("lora", "full"):
        write_run(tmp_path / method, f"method={method}")
        for task in ("names", "mood"):
            file = tmp_path / method / "predictions" / f"{task}.jsonl"
            file.write_text((json.dumps(prediction, ensure_ascii=False) + "\n") * 3)
        (tmp_path / method / "metrics.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps))
    file = tmp_path / "lora" / name
    cut(file, file.read_text(), by=9)

    compare([str(tmp_path), "--html", str(tmp_path / "page.html"), "--answers", "5"])

    told = f"{file} must hold an object of JSON on every line, got line 3 cut off: it is left out"
    assert told in capsys.readouterr().out
    assert told in (tmp_path / "page.html").read_text()


def test_files_that_end_well_are_not_named_however_long_their_last_line(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "method=lora")
    groups = group_runs(find_runs([tmp_path])[0])
    file = tmp_path / "a" / "metrics.jsonl"
    for text in ("", '{"step": 1}', '{"step": 1}\n' + json.dumps({"name": "x" * 200_000}) + "\n"):
        file.write_text(text)
        assert cut_files(groups) == []
    file.write_text('{"step": 1}\n' + json.dumps({"name": "x" * 200_000})[:-2])
    assert len(cut_files(groups)) == 1
