"""Which cells are probed again after a change of code: along a row or a column, or across all of them."""

from dataclasses import replace
from datetime import date

import pytest

from capabilities.__main__ import updated
from capabilities.answer import YES, Answer
from capabilities.choice import across, cells_of, changed, crosses
from capabilities.code import Codes, column_files, shared_files
from capabilities.probes import PROBES
from capabilities.rows import own_files, rows
from capabilities.table import Capabilities, Row, Whole
from forgetmenot.config.paths import conf_folder

WHOLE = Whole(date="2026-01-01", minutes=12.3, cores=2, versions={"torch": "2"}, command="make capabilities")
NOW = Codes.now()
KEPT = Capabilities(
    whole=WHOLE,
    rows={
        method: Row(code=NOW.rows[method], probed="2026-01-01", cells=dict.fromkeys(PROBES, YES)) for method in rows()
    },
    columns=NOW.columns,
    shared=NOW.shared,
)
IDLE = Answer(kind="idle", reason="settings without effect: replay; method=lora takes them")


def names(group: str, choice: str) -> set[str]:
    return {file.name for file in own_files(group, choice)}


@pytest.mark.parametrize(
    ("method", "files"),
    [
        ("full", {"full.yaml", "full.py", "whole.py"}),
        ("dora", {"dora.yaml", "lora.yaml", "lora.py", "lora_layers.py", "pissa.py", "adapter.py"}),
        ("pfeiffer", {"pfeiffer.yaml", "bottleneck.yaml", "bottleneck.py"}),
        ("prefix", {"prefix.yaml", "prefix.py", "learned_tokens.py"}),
        ("regularized", {"regularized.yaml", "full.yaml", "l2_sp.yaml", "full.py", "whole.py", "l2_sp.py"}),
    ],
)
def test_a_rows_own_files_are_its_settings_and_its_code(method: str, files: set[str]) -> None:
    assert files <= names("method", method)
    assert "base.py" not in names("method", method)


def test_a_methods_own_files_are_also_where_its_work_is_done() -> None:
    done_in = conf_folder().parent / "src" / "forgetmenot" / "data" / "shots.py"
    assert done_in in own_files("method", "one_shot") and done_in not in own_files("method", "full")


def test_a_penaltys_column_has_its_settings_and_all_that_it_computes_with() -> None:
    columns = {column: {file.name for file in column_files(column)} for column in PROBES}
    assert {"ewc.yaml", "ewc.py", "fisher.py", "low_rank.py", "kept_tensors.py"} <= columns["ewc"]
    assert {"l2_sp.yaml", "l2_sp.py", "low_rank.py"} <= columns["l2_sp"] and "fisher.py" not in columns["l2_sp"]
    assert {"kl.yaml", "kl.py", "compare.py"} <= columns["kl"]


def test_a_change_of_any_method_model_or_regularizer_is_noticed() -> None:
    noticed = {
        *(file for method in rows() for file in own_files("method", method)),
        *(file for column in PROBES for file in column_files(column)),
        *shared_files(),
    }
    source = conf_folder().parent / "src" / "forgetmenot"
    for room in ("method", "model", "regularizer"):
        assert {file for file in (source / room).glob("*.py") if file.stem != "__init__"} <= noticed


def test_what_is_kept_with_the_code_of_now_is_not_probed_again() -> None:
    assert changed(KEPT, NOW) == []


def test_a_row_is_probed_again_where_its_code_or_columns_are_others_or_it_is_new() -> None:
    others = {**KEPT.rows, "lora": replace(KEPT.rows["lora"], code="1"), "full": replace(KEPT.rows["full"], cells={})}
    del others["dora"]
    again = changed(replace(KEPT, rows=others), NOW)
    assert again == cells_of([method for method in rows() if method in ("lora", "full", "dora")])


def test_a_column_is_probed_again_in_every_row_where_its_code_is_another() -> None:
    again = changed(replace(KEPT, columns={**NOW.columns, "kl": "1"}), NOW)
    assert again == [(method, "kl") for method in rows()]


def test_what_all_cells_share_is_probed_once_in_each_row_and_each_column() -> None:
    again = changed(replace(KEPT, shared="1"), NOW)
    assert len(again) == len(rows()) and crosses(again)
    assert not crosses(cells_of(rows()[:-1])) and not crosses([(method, "kl") for method in rows()])
    assert set().union(*(across(seed=seed) for seed in range(len(PROBES)))) == set(cells_of(rows()))


def test_what_was_probed_again_takes_its_place_and_its_code_and_leaves_the_rest() -> None:
    old = replace(KEPT, rows={m: replace(r, code="1") for m, r in KEPT.rows.items()}, columns={"kl": "2"}, shared="3")

    row = updated(old, dict.fromkeys(cells_of(["lora"]), IDLE), codes=NOW, minutes=1)
    assert row.rows["lora"].code == NOW.rows["lora"] and row.rows["lora"].probed == date.today().isoformat()
    assert set(row.rows["lora"].cells.values()) == {IDLE}
    assert row.rows["dora"] == old.rows["dora"] and (row.columns, row.shared, row.whole) == ({"kl": "2"}, "3", WHOLE)

    column = updated(old, {(method, "kl"): IDLE for method in rows()}, codes=NOW, minutes=1)
    assert column.columns == {"kl": NOW.columns["kl"]} and column.shared == "3"
    assert all(row.code == "1" and list(row.cells) == list(PROBES) for row in column.rows.values())
    assert {row.probed for row in column.rows.values()} == {"2026-01-01"}, "the day is that of whole rows"
    assert column.rows["lora"].cells["kl"] == IDLE and column.rows["lora"].cells["ewc"] == YES

    assert updated(old, dict.fromkeys(across(seed=0), YES), codes=NOW, minutes=1).shared == NOW.shared


def test_all_cells_together_make_a_whole_and_rows_that_are_gone_are_left_out() -> None:
    known = Capabilities(whole=None, rows={"gone": KEPT.rows["lora"]})
    after = updated(known, dict.fromkeys(cells_of(rows()), YES), codes=NOW, minutes=61)
    assert after.whole is not None and after.whole.minutes == 61
    assert list(after.rows) == rows() and changed(after, NOW) == []
