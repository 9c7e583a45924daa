"""What a step makes and frees, segment by segment, and its fullest moments: plain data in and out."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from forgetmenot.footprint import Parts

Kind = Literal["weights", "gradients", "optimizer", "activations", "logits", "penalties"]


class Unit(NamedTuple):
    """Where alike blocks stand: in which stretch of them, and at which place."""

    stretch: int
    place: int


class Held(NamedTuple):
    """A storage that is there throughout, and the unit that it belongs to, if any."""

    number: int
    size: int
    kind: Kind
    unit: Unit | None


class Event(NamedTuple):
    """A storage of so many bytes is made, freed again, or counted as another kind from now on."""

    does: Literal["make", "free", "call"]
    number: int
    size: int
    kind: Kind


@dataclass(frozen=True, kw_only=True)
class Segment:
    """What happens within a phase of a step, in one unit or outside of all."""

    phase: str
    unit: Unit | None
    events: list[Event] = field(default_factory=list)
    flops: list[int] = field(default_factory=list)
    """Of each product."""


@dataclass(frozen=True, kw_only=True)
class Recording:
    """A step: what is there throughout, and what happens in order."""

    held: Sequence[Held]
    segments: Sequence[Segment]

    @property
    def flops(self) -> int:
        """Of all segments."""
        return sum(sum(segment.flops) for segment in self.segments)


def moments(recording: Recording) -> dict[str, Parts]:
    """Returns the fullest moment of each phase."""
    kinds = {held.number: held.kind for held in recording.held}
    bytes_of: dict[str, int] = {}
    for held in recording.held:
        bytes_of[held.kind] = bytes_of.get(held.kind, 0) + held.size
    fullest: dict[str, Parts] = {}
    most: dict[str, int] = {}
    for phase, (does, number, size, kind) in _events(recording.segments):
        if does != "make":
            bytes_of[kinds.pop(number)] -= size
        if does != "free":
            kinds[number] = kind
            bytes_of[kind] = bytes_of.get(kind, 0) + size
        if does == "make" and (total := sum(bytes_of.values())) > most.get(phase, -1):
            most[phase], fullest[phase] = total, Parts(**bytes_of)
    return fullest


def made_and_freed(segments: Iterable[Segment]) -> list[tuple[int, int]]:
    """Returns (number, bytes) of each storage that is made, and (-number, 0) where it is freed, in order."""
    signs = {"make": 1, "free": -1}
    return [
        (signs[event.does] * event.number, event.size if event.does == "make" else 0)
        for _, event in _events(segments)
        if event.does in signs
    ]


def _events(segments: Iterable[Segment]) -> Iterator[tuple[str, Event]]:
    return ((segment.phase, event) for segment in segments for event in segment.events)
