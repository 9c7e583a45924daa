"""The LightningDataModule: planned steps to train on, and batches of like lengths to score."""

from collections.abc import Iterator, Sequence

import numpy as np
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset, Sampler

from forgetmenot.data.collate import Collator
from forgetmenot.data.examples import ScoringSet
from forgetmenot.data.plan import Plan
from forgetmenot.data.types import Encoded, ScoringBatch, Step


class AdaptationData(LightningDataModule):
    """What a run trains on and is scored on, collated for one model (a soft prompt changes the layout, not the data)."""

    def __init__(
        self,
        train: Sequence[Encoded],
        *,
        validation: ScoringSet,
        tests: Sequence[ScoringSet],
        plan: Plan,
        collator: Collator,
    ) -> None:
        super().__init__()
        self.train = train
        self.validation = validation
        self.tests = tests
        self.plan = plan
        self.collator = collator

    def train_dataloader(self) -> DataLoader:
        """Yields this rank's share of every step of the epoch."""
        rank, world_size = self._rank()
        steps = _Steps(self.train, plan=self.plan, collator=self.collator, rank=rank, world_size=world_size)
        return DataLoader(steps, sampler=_EpochSteps(self.plan), batch_size=None)

    def val_dataloader(self) -> DataLoader:
        """Yields this rank's share of the target's validation examples."""
        return self._scoring_loader([self.validation])

    def test_dataloader(self) -> DataLoader:
        """Yields this rank's share of the test examples of the target and of every retained task."""
        return self._scoring_loader(self.tests)

    def _scoring_loader(self, sets: Sequence[ScoringSet]) -> DataLoader:
        rank, world_size = self._rank()
        batches = [(data, cut) for data in sets for cut in _scoring_cuts(data, tokens=self.plan.micro_batch_tokens)]
        return DataLoader(_Scoring(batches[rank::world_size], collator=self.collator), batch_size=None)

    def _rank(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)


class _Steps(Dataset[Step]):
    """Step k of a plan, collated."""

    def __init__(self, rows: Sequence[Encoded], *, plan: Plan, collator: Collator, rank: int, world_size: int) -> None:
        self.rows = rows
        self.plan = plan
        self.collator = collator
        self.rank = rank
        self.world_size = world_size

    def __getitem__(self, step: int) -> Step:
        cuts = self.plan.cuts(step, rank=self.rank, world_size=self.world_size)
        members = [self.rows[index] for index in self.plan.examples(step)]
        return Step(
            micro_batches=tuple(self.collator.rows([self.rows[index] for index in indices]) for indices, _ in cuts),
            weights=tuple(weight for _, weight in cuts),
            supervised_tokens=sum(row.num_supervised for row in members),
            num_tokens=sum(row.num_tokens for row in members),
        )


class _EpochSteps(Sampler[int]):
    """The numbers of an epoch's steps; Lightning tells it the epoch."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        first = self.epoch * self.plan.steps_per_epoch
        return iter(range(first, first + self.plan.steps_per_epoch))

    def __len__(self) -> int:
        return self.plan.steps_per_epoch


class _Scoring(Dataset[ScoringBatch]):
    """Batches to score, collated when they are asked for."""

    def __init__(self, batches: Sequence[tuple[ScoringSet, np.ndarray]], *, collator: Collator) -> None:
        self.batches = batches
        self.collator = collator

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> ScoringBatch:
        data, cut = self.batches[number]
        return ScoringBatch(
            task=data.task.name,
            indices=tuple(data.rows.example_indices[row] for row in cut),
            rows=self.collator.rows([data.rows.rows[row] for row in cut]),
            prompts=self.collator.prompts([data.prompts[row] for row in cut]) if data.prompts else None,
            max_new_tokens=data.task.max_new_tokens,
        )


def _scoring_cuts(data: ScoringSet, *, tokens: int) -> list[np.ndarray]:
    """Cuts rows, sorted by length, into batches of at most `tokens`, with room for the answers."""
    lengths = data.rows.lengths + data.task.max_new_tokens * bool(data.prompts)
    whole = Plan(lengths=lengths, batch_size=len(lengths), micro_batch_tokens=tokens, seed=0)
    return [indices for indices, _ in whole.cuts(0, rank=0, world_size=1)]
