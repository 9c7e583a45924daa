"""Pretraining's tasks answer as a reader would: people counted, numbers changed with the answer, one name found."""

from pathlib import Path
from random import Random

import pytest

PRETRAINING = str(Path(__file__).resolve().parents[1] / "pretraining")


@pytest.fixture(autouse=True)
def _scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(PRETRAINING)  # its modules import each other by bare name, as scripts do


@pytest.mark.parametrize(
    ("group", "size"),
    [
        ("four", 4),
        ("5 adults and 1 child", 6),
        ("two couples", 4),
        ("my wife and I", 2),
        ("me and my parents", 3),
        ("my two kids and me", 3),
    ],
)
def test_a_group_is_counted_with_its_speaker(group: str, size: int) -> None:
    from people import count_people

    assert count_people(group) == size


@pytest.mark.parametrize("group", ["my parents", "a friend", "several friends", "6 people and 2 people"])
def test_a_group_that_may_have_several_sizes_is_not_counted(group: str) -> None:
    from people import count_people

    assert count_people(group) is None


@pytest.mark.parametrize("text", ["We are 4 for lunch on the 4th.", "A table for four at 4 pm."])
def test_the_number_of_people_changes_and_the_time_stays(text: str) -> None:
    from people import NUMBER, change_number, value_of

    changed, size = change_number(text, size=4, rng=Random(0))

    assert size != 4 and value_of(NUMBER.search(changed)[1]) == size
    assert changed.endswith(text[-8:])


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("We were 5, but now it is 3.", 3),  # a mind changed
        ("Three of us and three of them", 3),  # two mentions
        ("Room for my wife and me", 2),  # none
        ("Just one", 1),
    ],
)
def test_a_number_that_is_not_plainly_the_people_stays(text: str, size: int) -> None:
    from people import change_number

    assert change_number(text, size=size, rng=Random(0)) == (text, size)


@pytest.mark.parametrize(
    ("sentence", "name"),
    [
        ("Then Ethel shut the door.", "Ethel"),
        ("The door hid Aunt Ethel on Monday.", "Ethel"),
        ("Ethel met Hugh at the door.", None),
        ("Ethel Brown shut the door.", None),
        ("The door was shut.", None),
        ("The rose of Ethel stood in Bath.", None),
    ],
)
def test_a_name_is_found_where_it_is_the_only_one(sentence: str, name: str | None) -> None:
    from names import FirstNames, learn_words, single_name

    names = FirstNames(female=("Ethel", "Rose"), male=("Hugh",), held_out=frozenset())
    texts = ["Ethel and Hugh saw the rose.", "then the door on which a rose was, a rose"]

    assert single_name(sentence, lexicon=learn_words(texts, names=names)) == name
