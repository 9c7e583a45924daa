"""Writes bookings from our own phrases: groups counted, added up, doubled or cut down, among other numbers."""

import re
from random import Random

from people import SIZE_WEIGHTS, SIZES, WORDS

KINDS = """
    people friends adults guests children students cousins hikers dancers cyclists neighbours teachers players
    singers visitors tourists nurses sailors boys girls ladies men women seniors workers climbers runners
    painters farmers cooks drivers doctors scouts swimmers toddlers sisters brothers aunts uncles nephews nieces
    travellers skaters riders
""".split()
PLACES = [
    "the table",
    "a boat",
    "the bus",
    "a cabin",
    "the museum tour",
    "dinner",
    "lunch",
    "breakfast",
    "the concert",
    "the play",
    "a cooking class",
    "the film",
    "the picnic",
    "a taxi",
    "the boat trip",
    "the train",
    "a family room",
    "the wedding",
    "the barbecue",
    "the quiz night",
    "the zoo",
    "the castle tour",
    "the ice rink",
    "a tent pitch",
    "the swimming class",
    "the dance",
    "the match",
    "the ferry",
    "the garden party",
    "a sauna",
    "the campsite",
]
ASKS = [
    "We need {place} for {group}{when}.",
    "Please book {place} for {group}{when}.",
    "Can you keep {place} for {group}{when}?",
    "{Group} will come to {place}{when}.",
    "{Group} would like to join {place}{when}.",
    "Is there space at {place} for {group}{when}?",
    "{Group} hope to see {place}{when}.",
    "I want to reserve {place} for {group}{when}, please.",
    "Could {group} share {place}{when}?",
    "Put us down for {place}{when}: {group}.",
    "It is about {place}{when}, and it is for {group}.",
    "We have booked {place} for {group}{when}.",
    "For {place}{when}, expect {group}.",
    "Is {place} big enough for {group}?",
    "Hello, I am calling about {place} for {group}{when}.",
    "How much is {place} for {group}{when}?",
    "{Group} are looking for {place}{when}.",
]
ALONE = ("one person", "1 person", "one guest", "just me", "me alone", "a single guest", "1 adult")
FIXED = (
    ("a couple", 2),
    ("the pair of us", 2),
    ("the couple next door", 2),
    ("a trio of friends", 3),
    ("a dozen guests", 12),
    ("half a dozen of us", 6),
    ("both of us", 2),
)
MINE = """
    friends children kids sons daughters brothers sisters cousins colleagues neighbours aunts nephews
""".split()
ONE_MORE = """
    wife husband son daughter mother father mum dad brother sister friend boss partner aunt uncle neighbour
""".split()
CHANGES = [
    "We booked {place} for {old}, but now we are {new}.",
    "We were going to be {old}, but {gone} fell ill, so it is {new} for {place}.",
    "I said {old} on the phone, but please make that {new} for {place}.",
    "{Old} were asked to {place}, but only {new} can come.",
    "There are {old} seats in {place}, but our group is only {new}.",
    "Of the {old} we asked, {new} will come to {place}.",
    "We hoped for {old}, yet just {new} will be at {place}.",
    "Our party has gone from {old} to {new}, so please change {place}.",
]
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
MONTHS = """
    January February March April May June July August September October November December
""".split()


def write_party(rng: Random) -> tuple[str, int]:
    """Return the text of a booking and how many people it is for."""
    if rng.random() < 0.18:
        return write_change(rng)
    group, size = write_group(rng)
    ask = rng.choice(ASKS)
    while size == 1 and re.search(r"Group|share|\bWe\b|us\b", ask):
        ask = rng.choice(ASKS)
    text = ask.format(place=rng.choice(PLACES), group=group, Group=group[0].upper() + group[1:], when=write_time(rng))
    return text + (write_noise(rng) if rng.random() < 0.3 else ""), size


def write_group(rng: Random) -> tuple[str, int]:
    """Return a group and its size: a number as a rule, else one to add up or to double."""
    size = rng.choices(SIZES, SIZE_WEIGHTS)[0]
    if size == 1:
        return rng.choice(ALONE), 1
    few = rng.randint(2, 8)
    mine, one = rng.choice(MINE), rng.choice(ONE_MORE)
    other = rng.choice([word for word in ONE_MORE if word != one])
    counted = [
        (f"{number(size, rng)} {rng.choice(KINDS)}", size),
        (f"{number(size, rng)} of us", size),
        (f"a group of {number(size, rng)}", size),
        (f"{number(size, rng)}", size),
        (f"{'all ' if size > 2 else ''}{number(size, rng)} of my {mine}", size),
    ]
    summed = [
        (f"my {one} and I", 2),
        (f"my {one}, my {other} and I", 3),
        (f"me and my {one}", 2),
        (f"me and {number(few, rng)} {mine}", few + 1),
        (f"my {number(few, rng)} {mine} and I", few + 1),
        (f"me, my {one} and our {number(few, rng)} {rng.choice(MINE[:5])}", few + 2),
        (f"{number(few, rng)} adults and {number(size, rng)} children", few + size),
        (f"{number(few, rng)} couples", 2 * few),
        ("my parents and I", 3),
        rng.choice(FIXED),
    ]
    return rng.choice(counted if rng.random() < 0.6 else summed)


def write_change(rng: Random) -> tuple[str, int]:
    """Return a booking whose number has changed, and the number that holds in the end."""
    new = rng.randint(2, 10)
    gone = rng.randint(1, 4)
    old = number(new + gone, rng)
    words = {"old": old, "Old": old.capitalize(), "new": number(new, rng), "gone": number(gone, rng)}
    return rng.choice(CHANGES).format(**words, place=rng.choice(PLACES)), new


def write_time(rng: Random) -> str:
    """Return a time or date, with the space before it, or nothing."""
    hour = rng.randint(1, 12)
    times = [
        f" at {number(hour, rng)}",
        f" at {hour}:{rng.choice(['00', '15', '30', '45'])}",
        f" at {hour} {rng.choice(['pm', 'am'])}",
        f" at {number(hour, rng)} o'clock",
        f" on {rng.choice(DAYS)} at {number(hour, rng)}",
        f" on the {rng.randint(4, 20)}th",
        f" on {rng.choice(MONTHS)} {rng.randint(1, 28)}",
        f" on {rng.choice(DAYS)}",
        f" at half past {number(hour, rng)}",
    ]
    return rng.choice(times) if rng.random() < 0.7 else ""


def write_noise(rng: Random) -> str:
    """Return a sentence with a number that counts no people."""
    amount = rng.randint(2, 60)
    noise = [
        f" We can pay {amount} euros.",
        f" We have a voucher for {amount} off.",
        f" It is {amount} miles from here.",
        f" We want to stay {number(rng.randint(2, 7), rng)} nights.",
        f" Our room is number {amount}.",
        f" We may be {number(rng.randint(5, 12), rng)} minutes late.",
        f" We have {number(rng.randint(2, 5), rng)} dogs with us.",
    ]
    return rng.choice(noise)


def number(size: int, rng: Random) -> str:
    """Return a number in digits or, up to twelve, in words."""
    return WORDS[size] if size <= 12 and rng.random() < 0.5 else str(size)
