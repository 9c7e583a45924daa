"""The LightningDataModule: planned steps to train on, and batches of like lengths to score."""

import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import Self

import numpy as np
import torch
from lightning.pytorch import LightningDataModule, Trainer
from torch.utils.data import DataLoader, Dataset, Sampler

from forgetmenot.data.collate import Collator
from forgetmenot.data.compare import Comparison
from forgetmenot.data.examples import ScoringSet
from forgetmenot.data.plan import Cut, Plan, dealt
from forgetmenot.data.rows import EncodedSplit
from forgetmenot.data.types import Batch, Compared, ComparedStep, ScoringBatch, Step, StepTask


class AdaptationData(LightningDataModule):
    """What a run trains on and is scored on, collated for one model: a soft prompt changes layout, not data.

    Where several tasks are trained on, `tests` has them first and in the order of the plan's mix.
    """

    def __init__(
        self,
        train: EncodedSplit,
        *,
        validation: Sequence[ScoringSet],
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
        self.base_collator: Collator | None = None
        """How the base reads rows, where retained tasks are to be compared with it."""
        self.comparisons: Sequence[Comparison] = ()
        """How steps are laid out for penalties on tokens, one each."""
        self.first_step = 0
        """The step that training begins with: that of a checkpoint where it goes on."""
        self.loading_seconds = 0.0
        """What making training steps took so far: the time that training waited for data."""

    @classmethod
    def of(cls, trainer: Trainer) -> Self | None:
        """Returns what a Trainer trains on; None where it was given loaders alone."""
        data = trainer.datamodule  # type: ignore[attr-defined]  # Lightning sets it in fit
        return data if isinstance(data, cls) else None

    def train_dataloader(self) -> DataLoader[Step]:
        """Yields this rank's share of every step of the epoch."""
        return DataLoader(_Steps(self), sampler=_EpochSteps(self.plan, start=self.first_step), batch_size=None)

    def step(self, number: int) -> Step:
        """Returns this rank's share of step `number`, counted from 0 over all epochs."""
        rank, world_size = self._rank()
        cuts = self.plan.cuts(number, rank=rank, world_size=world_size)
        members = self.plan.examples(number)
        rows = self.train.rows
        return Step(
            number=number,
            examples=self._examples_of(members),
            micro_batches=tuple(self._micro_batch(indices) for indices, _ in cuts),
            weights=tuple(weight for _, weight in cuts),
            supervised_tokens=int(rows.completion_lengths[members].sum()),
            num_tokens=int(rows.lengths[members].sum()),
            tasks=self._tasks_of(members),
            compared=tuple(self._compared(comparison, cuts, members) for comparison in self.comparisons),
        )

    def _compared(self, comparison: Comparison, cuts: Sequence[Cut], members: np.ndarray) -> ComparedStep:
        """Returns a step's micro-batches as a penalty on tokens reads them."""
        rows = self.train.rows
        return ComparedStep(
            micro_batches=tuple(comparison.of([rows[index] for index in indices]) for indices, _ in cuts),
            tokens=comparison.tokens([rows[index] for index in members]),
        )

    def _micro_batch(self, indices: np.ndarray) -> Batch:
        """Returns training rows laid out, with the task of each where there are several."""
        batch = self.collator.rows([self.train.rows[index] for index in indices])
        if len(self._trained) < 2:
            return batch
        places = np.searchsorted(self._trained, self.plan.mixed.tasks(indices))
        return replace(batch, tasks_B=torch.from_numpy(places))

    def _examples_of(self, members: np.ndarray) -> tuple[int | str, ...]:
        """Returns the examples that some training rows belong to, as people are told of them."""
        indices: list[int] = self.train.example_indices[members].tolist()
        if len(self._trained) < 2:
            return tuple(indices)
        names = [self.tests[task].task.name for task in self.plan.mixed.tasks(members)]
        return tuple(f"{name} {index}" for name, index in zip(names, indices, strict=True))

    def _tasks_of(self, members: np.ndarray) -> tuple[StepTask, ...]:
        """Returns what each task has of some training rows; nothing where there is one task alone."""
        mix, rows = self.plan.mixed, self.train.rows
        if len(self._trained) < 2:
            return ()
        whose = mix.tasks(members)
        return tuple(
            StepTask(
                name=self.tests[task].task.name,
                supervised_tokens=int(rows.completion_lengths[members[whose == task]].sum()),
                num_tokens=int(rows.lengths[members[whose == task]].sum()),
                num_rows=int((whose == task).sum()),
                replayed=task >= len(mix.counts),
            )
            for task in self._trained
        )

    @property
    def _trained(self) -> list[int]:
        """The numbers of the tasks that have training rows."""
        return [task for task, size in enumerate(self.plan.mixed.sizes) if size]

    def longest(self, tokens: int) -> tuple[Batch, tuple[Compared, ...]]:
        """Returns the longest training example, over and over, in about `tokens` tokens; and as it is compared."""
        longest = int(self.plan.lengths.argmax())
        rows = [self.train.rows[longest]] * max(1, tokens // int(self.plan.lengths[longest]))
        return self.collator.rows(rows), tuple(comparison.of(rows) for comparison in self.comparisons)

    def halved(self, number: int) -> Step:
        """Returns the step anew, with half as many tokens in its largest micro-batch, from now on in every step.

        Raises ValueError where the step's micro-batches hold one example each already.
        """
        self.plan = self.plan.halved(number, world_size=self._rank()[1])
        return self.step(number)

    def val_dataloader(self) -> DataLoader[ScoringBatch]:
        """Yields this rank's share of the validation examples of every target."""
        return self._scoring_loader(self.validation)

    def test_dataloader(self) -> DataLoader[ScoringBatch]:
        """Yields this rank's share of the test examples of every target and of every retained task."""
        return self._scoring_loader(self.tests)

    def _scoring_loader(self, sets: Sequence[ScoringSet]) -> DataLoader[ScoringBatch]:
        batches = [(data, cut) for data in sets for cut in self._scoring_cuts(data)]
        retained = {data.task.name for data in self.tests if data.role == "retained"}
        return DataLoader(_Scoring(self, batches, compared=retained if self.base_collator else set()), batch_size=None)

    def _scoring_cuts(self, data: ScoringSet) -> list[Cut]:
        """Cuts rows, sorted by length, into batches of at most `micro_batch_tokens` with padding and answers.

        Returns this rank's, as many as every other rank's. Batches are those of one process, however many ranks share
        them: in others, losses would come out otherwise in their last digits.
        """
        rank, world_size = self._rank()
        width = self.collator.to_score().width
        answer = data.task.max_new_tokens if data.task.answers else 0
        splits = (data.rows, *data.choices)
        longest = np.max([split.lengths for split in splits], axis=0)
        if self.collator.decoder_start_id is not None:  # prompts and completions are padded each by themselves
            longest = data.rows.rows.prompt_lengths
            answer = max(answer, *(width(int(split.rows.completion_lengths.max())) for split in splits))
        rows = longest + self.collator.num_virtual_tokens
        widths = {tokens: width(tokens) for tokens in np.unique(rows).tolist()}
        lengths = np.array([widths[tokens] for tokens in rows.tolist()]) + answer
        limit = self.plan.micro_batch_tokens
        whole = Plan(lengths=lengths, batch_size=len(lengths), micro_batch_tokens=limit, seed=0, rounded=True)
        return dealt(whole.micro_batches(0, world_size=1), rank=rank, world_size=world_size)

    def _rank(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)


class _Steps(Dataset[Step]):
    """The steps of a data module by their numbers."""

    def __init__(self, data: AdaptationData) -> None:
        self.data = data

    def __getitem__(self, number: int) -> Step:
        started = time.perf_counter()
        step = self.data.step(number)
        self.data.loading_seconds += time.perf_counter() - started
        return step


class _EpochSteps(Sampler[int]):
    """The numbers of an epoch's steps from `start` on; Lightning tells it the epoch, after it has asked for them."""

    def __init__(self, plan: Plan, *, start: int) -> None:
        self.plan = plan
        self.start = start
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        first = self.epoch * self.plan.steps_per_epoch
        yield from range(max(first, self.start), first + self.plan.steps_per_epoch)

    def __len__(self) -> int:
        return self.plan.steps_per_epoch


class _Scoring(Dataset[ScoringBatch]):
    """Batches to score, collated when they are asked for; tasks to be `compared` carry the base's rows, too."""

    def __init__(
        self, data: AdaptationData, batches: Sequence[tuple[ScoringSet, Cut]], *, compared: Collection[str]
    ) -> None:
        self.data = data
        self.batches = batches
        self.compared = compared
        sets = {scored.task.name: scored for scored, _ in batches}
        self.shared = {name: self._shared(scored) for name, scored in sets.items()}

    def _shared(self, scored: ScoringSet) -> int:
        """Returns how many tokens all prompts of a task begin with, to be computed once."""
        rows = scored.rows.rows
        return self.data.collator.shared([rows.prompt(i) for i in range(len(rows))]) if scored.task.answers else 0

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> ScoringBatch:
        scored, (cut, weight) = self.batches[number]
        collator = self.data.collator.to_score()
        base_collator = self.data.base_collator and self.data.base_collator.to_score()
        rows, task = scored.rows.rows, scored.task
        indices = tuple(scored.rows.example_indices[cut].tolist())
        members, prompts = [rows[row] for row in cut], [rows.prompt(row) for row in cut]
        shared = self.shared[task.name]
        return ScoringBatch(
            task=task.name,
            indices=indices,
            rows=collator.rows(members),
            num_supervised=tuple(rows.completion_lengths[cut].tolist()),
            num_bytes=tuple(scored.num_bytes[cut].tolist()),
            prompts=collator.prompts(prompts, after=shared, room=task.max_new_tokens) if task.answers else None,
            prefix=collator.prefix(prompts[0], length=shared) if shared else None,
            max_new_tokens=task.max_new_tokens,
            counted=weight > 0,
            choices=tuple(collator.rows([split.rows[row] for row in cut]) for split in scored.choices),
            right=tuple(task.choices.index(scored.examples[i].completion) for i in indices) if task.choices else (),
            base_rows=base_collator.rows(members) if base_collator and task.name in self.compared else None,
        )
