"""Lays rows out for two models, labelled where their next tokens are to be compared."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from forgetmenot.data.collate import Collator
from forgetmenot.data.types import IGNORE_INDEX, Compared, Encoded


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How rows are laid out to be compared: by which model, and at the supervised tokens or all that a row has."""

    collator: Collator
    reference_collator: Collator
    positions: Literal["supervised", "all"]

    def of(self, rows: Sequence[Encoded]) -> Compared:
        """Returns `rows` as both models read them."""
        chosen = [self._labelled(row) for row in rows]
        return Compared(rows=self.collator.rows(chosen), reference_rows=self.reference_collator.rows(chosen))

    def tokens(self, rows: Sequence[Encoded]) -> int:
        """Returns at how many tokens of `rows` the models are compared."""
        return sum(self._labelled(row).num_supervised for row in rows)

    def _labelled(self, row: Encoded) -> Encoded:
        """Returns the row with a label at each compared token: no model tells the first of what it reads.

        A decoder's labels are all its tokens already.
        """
        if self.positions == "supervised" or self.collator.decoder_start_id is not None:
            return row
        labels = row.input_ids.copy()
        labels[0] = IGNORE_INDEX
        return replace(row, labels=labels)
