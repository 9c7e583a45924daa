"""Reading: files, folders and hub ids become records; what is broken is named with file and line."""

import json
from collections.abc import Callable
from pathlib import Path

import datasets
import pytest

from forgetmenot.data.read import read

ROWS = [{"text": f"row {i}", "label": "even" if i % 2 == 0 else "odd"} for i in range(30)]
FEATURES = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})


def write_jsonl(file: Path, rows: list[dict[str, str]]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_csv(file: Path, rows: list[dict[str, str]]) -> None:
    file.write_text("text,label\n" + "".join(f"{row['text']},{row['label']}\n" for row in rows), encoding="utf-8")


def write_parquet(file: Path, rows: list[dict[str, str]]) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)


def texts(splits: dict[str, list], split: str) -> list[object]:
    return [record.values["text"] for record in splits[split]]


def error_of(folder: Path, name: str, content: bytes) -> str:
    """Returns the one sentence that reading `content` ends with."""
    (folder / name).write_bytes(content)
    with pytest.raises(ValueError) as caught:
        read(str(folder / name), seed=0)
    assert str(folder / name) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("suffix", "write"), [("jsonl", write_jsonl), ("json", write_jsonl), ("csv", write_csv), ("parquet", write_parquet)]
)
def test_every_kind_of_file_gives_the_same_records(tmp_path: Path, suffix: str, write: Callable[..., None]) -> None:
    for split in ("train", "validation", "test"):
        write(tmp_path / f"{split}.{suffix}", ROWS)
    splits = read(str(tmp_path), seed=0)
    assert {name: [record.values for record in records] for name, records in splits.items()} == {
        "train": ROWS,
        "validation": ROWS,
        "test": ROWS,
    }


def test_a_folder_keeps_its_own_splits_in_file_order(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "train.jsonl", ROWS[:10])
    write_csv(tmp_path / "dev.csv", ROWS[10:20])
    write_jsonl(tmp_path / "test.jsonl", ROWS[20:])
    splits = read(str(tmp_path), seed=0)
    assert texts(splits, "train") + texts(splits, "validation") + texts(splits, "test") == [r["text"] for r in ROWS]


def test_two_files_of_one_split_are_an_error_that_names_both(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "train.jsonl", ROWS)
    write_csv(tmp_path / "train.csv", ROWS)
    with pytest.raises(ValueError, match=r"train split must be one file, got train\.jsonl, train\.csv"):
        read(str(tmp_path), seed=0)


def test_a_folder_without_splits_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must hold train, validation and test files"):
        read(str(tmp_path), seed=0)


def test_a_file_that_is_not_there_is_an_error_and_not_a_hub_id(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"data\.path must be an existing file or folder"):
        read(str(tmp_path / "missing.jsonl"), seed=0)


def test_a_single_file_is_split_80_10_10_without_overlap_or_loss(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "all.jsonl", ROWS)
    splits = read(str(tmp_path / "all.jsonl"), seed=0)
    assert [len(splits[name]) for name in ("train", "validation", "test")] == [24, 3, 3]
    together = texts(splits, "train") + texts(splits, "validation") + texts(splits, "test")
    assert sorted(together) == sorted(row["text"] for row in ROWS)


def test_the_seed_alone_decides_the_split(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "all.jsonl", ROWS)
    first, again, other = (read(str(tmp_path / "all.jsonl"), seed=seed) for seed in (3, 3, 4))
    assert first == again
    assert texts(first, "test") != texts(other, "test")


def test_held_out_records_stay_in_file_order(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "all.jsonl", ROWS)
    splits = read(str(tmp_path / "all.jsonl"), seed=1)
    assert all([r.line for r in records] == sorted(r.line for r in records) for records in splits.values())


def test_a_missing_validation_split_is_taken_from_train(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "train.jsonl", ROWS[:20])
    write_jsonl(tmp_path / "test.jsonl", ROWS[20:])
    splits = read(str(tmp_path), seed=0)
    assert len(splits["validation"]) == 2
    assert sorted(texts(splits, "train") + texts(splits, "validation")) == sorted(row["text"] for row in ROWS[:20])
    assert texts(splits, "test") == [row["text"] for row in ROWS[20:]]


def test_a_test_split_alone_is_left_as_it_is(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "test.jsonl", ROWS)
    splits = read(str(tmp_path), seed=0)
    assert (splits["train"], splits["validation"], len(splits["test"])) == ([], [], 30)


def test_too_few_records_to_split_is_an_error(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "all.jsonl", ROWS[:2])
    with pytest.raises(ValueError, match="must hold at least 3 records to split, got 2"):
        read(str(tmp_path / "all.jsonl"), seed=0)


def test_records_know_their_line_past_empty_lines(tmp_path: Path) -> None:
    (tmp_path / "test.jsonl").write_text('{"text": "a"}\n\n{"text": "b"}\n', encoding="utf-8")
    assert [record.line for record in read(str(tmp_path), seed=0)["test"]] == [1, 3]


def test_a_byte_order_mark_and_windows_line_ends_are_read_away(tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_bytes(b"\xef\xbb\xbftext,label\r\na,b\r\n")
    assert read(str(tmp_path), seed=0)["test"][0].values == {"text": "a", "label": "b"}


def test_a_quoted_csv_field_may_span_lines(tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_text('text,label\n"one\ntwo, three",x\n', encoding="utf-8")
    assert texts(read(str(tmp_path), seed=0), "test") == ["one\ntwo, three"]


@pytest.mark.parametrize("character", ["\u2028", "\x85", "\x0c"])
def test_a_unicode_line_separator_does_not_end_a_csv_record(tmp_path: Path, character: str) -> None:
    (tmp_path / "test.csv").write_text(f"text,label\none{character}two,x\n", encoding="utf-8")
    assert texts(read(str(tmp_path), seed=0), "test") == [f"one{character}two"]


def test_a_broken_json_row_is_named_by_line(tmp_path: Path) -> None:
    assert "line 2: must be one JSON object" in error_of(tmp_path, "a.jsonl", b'{"text": "a"}\n{"text": \n')


def test_a_json_row_that_is_no_object_is_named_by_line(tmp_path: Path) -> None:
    assert "line 1: must be one JSON object, got list" in error_of(tmp_path, "a.jsonl", b"[1, 2]\n")


def test_half_a_character_is_named_by_line(tmp_path: Path) -> None:
    assert "line 2" in error_of(tmp_path, "a.jsonl", b'{"text": "a"}\n{"text": "\\ud83d"}\n{"text": "b"}\n')


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
def test_a_wrong_encoding_is_named_by_byte_and_line(tmp_path: Path, name: str) -> None:
    message = error_of(tmp_path, name, '"text"\n"plain"\n"café"\n'.encode("latin-1"))
    assert "line 3: must be UTF-8 text, got byte 0xe9" in message


def test_a_wrong_byte_after_a_byte_order_mark_is_named_by_its_line(tmp_path: Path) -> None:
    assert "line 2: must be UTF-8 text" in error_of(tmp_path, "a.csv", b"\xef\xbb\xbftext\n\xff\n")


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.parquet"])
def test_an_empty_file_is_an_error(tmp_path: Path, name: str) -> None:
    assert "must" in error_of(tmp_path, name, b"")


def test_a_csv_header_alone_counts_as_empty(tmp_path: Path) -> None:
    assert "must hold at least one record" in error_of(tmp_path, "a.csv", b"text,label\n")


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
@pytest.mark.parametrize("content", [b"\x89PNG\r\n\x1a\n\xff\xd8", b"PK\x03\x04\x00\x00\x00\x00"])
def test_a_binary_file_is_an_error(tmp_path: Path, name: str, content: bytes) -> None:
    assert "line 1" in error_of(tmp_path, name, content)


def test_a_file_that_is_no_parquet_is_an_error(tmp_path: Path) -> None:
    assert "must be a parquet file" in error_of(tmp_path, "a.parquet", b"\x00" * 100)


def test_a_damaged_parquet_file_is_an_error(tmp_path: Path) -> None:
    write_parquet(tmp_path / "whole.parquet", ROWS)
    whole = (tmp_path / "whole.parquet").read_bytes()
    assert "parquet" in error_of(tmp_path, "a.parquet", whole[:4] + b"\xff" * 80 + whole[84:])


def test_an_unknown_ending_is_an_error(tmp_path: Path) -> None:
    assert "must be one of .jsonl" in error_of(tmp_path, "a.txt", b"text")


@pytest.mark.parametrize("row", [b"only one", b"one,two,three"])
def test_a_csv_row_of_the_wrong_width_is_named_by_line(tmp_path: Path, row: bytes) -> None:
    assert "line 3: must have 2 fields" in error_of(tmp_path, "a.csv", b"text,label\na,b\n" + row + b"\nc,d\n")


def test_broken_csv_quoting_is_named_by_line(tmp_path: Path) -> None:
    assert "line 3: must be csv" in error_of(tmp_path, "a.csv", b'text,label\na,b\n"c"d,e\nf,g\n')


def test_class_labels_of_a_parquet_file_are_read_as_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    rows = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=FEATURES)
    rows.to_parquet(tmp_path / "test.parquet")
    assert [record.values["label"] for record in read(str(tmp_path), seed=0)["test"]] == ["yes", "no"]


def hub(monkeypatch: pytest.MonkeyPatch, labels: dict[str, list[int]]) -> None:
    """Puts a small data set where the hub would be."""
    splits = {
        name: datasets.Dataset.from_dict({"text": [f"{name} {i}" for i in range(len(ids))], "label": ids}, FEATURES)
        for name, ids in labels.items()
    }
    monkeypatch.setattr(datasets, "load_dataset", lambda path: datasets.DatasetDict(splits))


def test_class_labels_of_the_hub_are_read_as_names(monkeypatch: pytest.MonkeyPatch) -> None:
    hub(monkeypatch, {"train": [0, 1, 1], "validation": [1], "test": [0]})
    splits = read("someone/something", seed=0)
    assert [record.values["label"] for record in splits["train"]] == ["no", "yes", "yes"]
    assert (texts(splits, "validation"), texts(splits, "test")) == (["validation 0"], ["test 0"])


def test_a_hub_row_without_a_label_is_an_error_that_names_split_and_line(monkeypatch: pytest.MonkeyPatch) -> None:
    hub(monkeypatch, {"train": [0, 1], "test": [1, -1]})
    with pytest.raises(ValueError, match="someone/something test line 2: column 'label' must have a label, got -1"):
        read("someone/something", seed=0)


def test_a_missing_hub_split_is_taken_from_train(monkeypatch: pytest.MonkeyPatch) -> None:
    hub(monkeypatch, {"train": [0, 1] * 10, "test": [1]})
    splits = read("someone/something", seed=0)
    assert (len(splits["train"]), len(splits["validation"]), len(splits["test"])) == (18, 2, 1)


def test_a_hub_that_cannot_be_reached_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> None:
        raise ConnectionError("no network\nat all")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(ValueError, match=r"hub id that can be reached, got someone/something \(no network\)$"):
        read("someone/something", seed=0)


def test_a_split_published_without_labels_is_as_if_it_were_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    hub(monkeypatch, {"train": [0, 1] * 10, "validation": [1], "test": [-1, -1]})
    splits = read("someone/something", seed=0)
    assert len(splits["train"]) == 18 and len(splits["test"]) == 2
    assert {record.values["label"] for record in splits["test"]} <= {"no", "yes"}


def test_a_csv_that_names_a_column_twice_is_refused(tmp_path: Path) -> None:
    assert "line 1: must name each column once, got 'a' twice" in error_of(tmp_path, "x.csv", b"q,a,a\n1,2,3\n")


def test_a_csv_field_may_hold_a_book(tmp_path: Path) -> None:
    book = "word " * 40_000
    (tmp_path / "x.csv").write_text("text,label\n" + f"{book},long\n" * 4, encoding="utf-8")
    assert set(texts(read(str(tmp_path / "x.csv"), seed=0), "train")) == {book}


@pytest.mark.parametrize("line", [b"[" * 100_000, b'{"number": ' + b"9" * 5000 + b"}"], ids=["deep", "long number"])
def test_json_that_python_gives_up_on_is_named_by_file_and_line(tmp_path: Path, line: bytes) -> None:
    assert "line 2: must be one JSON object" in error_of(tmp_path, "x.jsonl", b'{"a": 1}\n' + line)


def test_half_a_surrogate_pair_is_found_within_lists_too(tmp_path: Path) -> None:
    assert "half of a surrogate pair" in error_of(tmp_path, "x.jsonl", b'{"references": ["fine", "\\ud83d"]}')
