"""A step of a model of many alike units of blocks, from that of one of five of them: plain data in and out.

The first two and the last two are as they are. The one in between stands for all the others, where it does what one
beside it does in every segment, down to each byte and to whose storages it frees.
"""

from collections.abc import Iterator, Sequence
from itertools import count, groupby

from forgetmenot.trace import Event, Held, Recording, Segment, Unit

_UNITS = range(5)
_BETWEEN = 2

Made = tuple[str, int, int, int]
"""Which storage of those that a unit's segment makes: phase, stretch, place and order; of another segment, its index in
place of the place and -1 for the stretch."""


def deepened(recording: Recording, counts: Sequence[int]) -> Recording | None:
    """Returns the step where stretches have `counts` units; None where those in between do not do alike."""
    deepening = _Deepening(recording, counts)
    return deepening.whole() if deepening.are_alike() else None


class _Deepening:
    """Copies what units in between do, each copy beside its own neighbours."""

    def __init__(self, recording: Recording, counts: Sequence[int]) -> None:
        self.held, self.segments, self.counts = recording.held, recording.segments, counts
        self.makers: dict[int, tuple[int, int]] = {}  # of each number the segment that makes it, and the order there
        for index, segment in enumerate(self.segments):
            made = (event.number for event in segment.events if event.does == "make")
            self.makers.update((number, (index, order)) for order, number in enumerate(made))
        self.numbers: dict[Made, int] = {}
        self.fresh = count(1 + max([*self.makers, *(held.number for held in self.held)], default=0))

    def are_alike(self) -> bool:
        """Tells whether every phase has a segment of each unit, and that in between does what one beside it does."""
        of_units: dict[tuple[str, int], dict[int, int]] = {}
        for index, segment in enumerate(self.segments):
            if segment.unit is not None:
                places = of_units.setdefault((segment.phase, segment.unit.stretch), {})
                if segment.unit.place in places:
                    return False
                places[segment.unit.place] = index
        if any(sorted(places) != list(_UNITS) for places in of_units.values()):
            return False
        beside = (_BETWEEN - 1, _BETWEEN + 1)  # of which one has a first or a last unit on its other side
        return all(
            any(self._seen(places[_BETWEEN]) == self._seen(places[other]) for other in beside)
            for places in of_units.values()
        ) and all(
            self._kept(Unit(stretch, _BETWEEN)) == self._kept(Unit(stretch, other))
            for stretch in range(len(self.counts))
            for other in beside
        )

    def whole(self) -> Recording:
        """Returns the step of all units."""
        held, segments = list(self._held()), []
        for index, segment in enumerate(self.segments):
            if segment.unit is None:
                segments.append(self._copy(index, None))
                continue
            places, before = self._places(segment.unit), segments[-1].unit if segments else None
            if before is not None and before > segment.unit:  # a backward pass comes from the last unit
                places = places[::-1]
            segments += [self._copy(index, place) for place in places]
        return Recording(held=held, segments=segments)

    def _seen(self, index: int) -> tuple[object, ...]:
        """Returns what a segment does as its unit sees it: other units are so many places away."""
        segment = self.segments[index]
        events = [(does, size, kind, self._maker_seen(index, number)) for does, number, size, kind in segment.events]
        return events, segment.flops

    def _maker_seen(self, index: int, number: int) -> tuple[object, ...]:
        if number not in self.makers:
            return (number,)
        by, order = self.makers[number]
        away = self._places_away(index, by)
        return (by, order) if away is None else (self.segments[by].phase, away, order)

    def _places_away(self, index: int, other: int) -> int | None:
        """Returns how many units behind that of a segment another's stands; None where they are of no one stretch."""
        here, there = self.segments[index].unit, self.segments[other].unit
        return there.place - here.place if here and there and here.stretch == there.stretch else None

    def _kept(self, unit: Unit) -> list[tuple[str, int]]:
        return [(held.kind, held.size) for held in self.held if held.unit == unit]

    def _held(self) -> Iterator[Held]:
        """Yields what is there throughout; what a unit in between holds, once for each that it stands for."""
        for (_, unit), group in groupby(self.held, key=lambda held: (held.kind, held.unit)):
            alike = list(group)
            if unit is None:
                yield from alike
                continue
            for copy, place in enumerate(self._places(unit)):
                for held in alike:
                    number = next(self.fresh) if copy else held.number
                    yield held._replace(number=number, unit=unit._replace(place=place))

    def _places(self, unit: Unit) -> list[int]:
        """Returns where units stand in the whole stretch that do what `unit` does."""
        more = self.counts[unit.stretch] - len(_UNITS)
        if unit.place == _BETWEEN:
            return list(range(_BETWEEN, _BETWEEN + 1 + more))
        return [unit.place if unit.place < _BETWEEN else unit.place + more]

    def _copy(self, index: int, place: int | None) -> Segment:
        """Returns a segment as it is for the unit at `place`."""
        segment, events, order = self.segments[index], [], 0
        for event in segment.events:
            if event.does == "make":
                number = self.numbers[self._made(index, place, order)] = next(self.fresh)
                events.append(event._replace(number=number))
                order += 1
            else:
                events += [event._replace(number=number) for number in self._meant(index, place, event)]
        unit = None if segment.unit is None or place is None else segment.unit._replace(place=place)
        return Segment(phase=segment.phase, unit=unit, events=events, flops=segment.flops)

    def _made(self, index: int, place: int | None, order: int) -> Made:
        phase, unit = self.segments[index].phase, self.segments[index].unit
        return (phase, -1, index, order) if unit is None or place is None else (phase, unit.stretch, place, order)

    def _meant(self, index: int, place: int | None, event: Event) -> list[int]:
        """Returns the storages that an event is about: a neighbour's, or that of all units which one stands for."""
        if event.number not in self.makers:
            return [event.number]
        by, order = self.makers[event.number]
        maker, away = self.segments[by].unit, self._places_away(index, by)
        if maker is None:
            return [self.numbers[self._made(by, None, order)]]
        if place is not None and away is not None and abs(away) <= 1:
            return [self.numbers[self._made(by, place + away, order)]]
        return [self.numbers[self._made(by, each, order)] for each in self._places(maker)]
