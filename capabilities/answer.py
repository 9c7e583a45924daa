"""What a probe came to: yes, or a reason in the words of the command that was tried."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Self

Kind = Literal["yes", "refused", "idle", "fault"]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One cell of the table.

    `yes`: it ran and what came out held. `refused`: the command said in a sentence why it cannot be, before weights
    were read. `idle`: it ran, and warned in a sentence that the setting has no effect. `fault`: anything else, a bug.
    """

    kind: Kind
    reason: str = ""

    @classmethod
    def read(cls, cell: str | Mapping[str, str]) -> Self:
        """Returns the answer that `written` made `cell` of."""
        if isinstance(cell, str):
            return cls(kind="yes")
        ((kind, reason),) = cell.items()
        for known in ("refused", "idle", "fault"):
            if kind == known:
                return cls(kind=known, reason=reason)
        raise ValueError(f"a cell must be yes, refused, idle or fault, got {kind}")

    def written(self) -> str | dict[str, str]:
        """Returns the answer as JSON holds it."""
        return self.kind if self.kind == "yes" else {self.kind: self.reason}

    def __str__(self) -> str:
        return self.kind if self.kind == "yes" else f"{self.kind}: {self.reason}"


YES = Answer(kind="yes")


class NotYes(Exception):
    """Ends a probe that came to another answer than yes."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(str(answer))
        self.answer = answer


def hold(condition: bool, otherwise: str) -> None:
    """Ends a probe as a fault where what came out of a run is not what was promised."""
    if not condition:
        raise NotYes(Answer(kind="fault", reason=otherwise))
