"""Writes facts and opinions about the same everyday things from our own phrases."""

from random import Random

THINGS = [
    "the museum",
    "the bakery",
    "the old bridge",
    "the school choir",
    "the lake",
    "the bus station",
    "the new library",
    "the market",
    "the hotel",
    "the garden",
    "the harbour",
    "the zoo",
    "the mayor",
    "the teacher",
    "the baker",
    "the guide",
    "the soup",
    "the bread",
    "the coffee",
    "the cheese",
    "the film",
    "the novel",
    "the play",
    "the second chapter",
    "the ending",
    "the song",
    "the album",
    "the concert",
    "the poem",
    "the portrait",
    "the cast",
    "the phone",
    "the bicycle",
    "the train",
    "the ferry",
    "the chair",
    "the lamp",
    "the kitchen",
    "the tent",
    "the clock",
    "the dog",
    "the cat",
    "the parrot",
    "the match",
    "the goalkeeper",
    "the captain",
    "the race",
    "the festival",
    "the carnival",
    "the winter",
    "the beach",
    "the forest path",
    "the castle",
    "my uncle",
    "her sister",
    "our neighbour",
    "the doctor",
    "the cook",
    "the waiter",
    "the painter",
    "the driver",
    "the story",
    "the picture",
    "the game",
]
GOOD = [
    "wonderful",
    "lovely",
    "charming",
    "brilliant",
    "delightful",
    "superb",
    "beautiful",
    "clever",
    "touching",
    "splendid",
    "magnificent",
    "graceful",
    "witty",
    "the best of its kind",
    "a joy",
    "a treat",
    "well worth the trouble",
    "pleasant",
    "admirable",
    "remarkable",
    "impressive",
    "thrilling",
    "fine",
]
BAD = [
    "dreadful",
    "dull",
    "ugly",
    "boring",
    "awful",
    "clumsy",
    "disappointing",
    "tiresome",
    "overrated",
    "silly",
    "terrible",
    "the worst of its kind",
    "a mess",
    "a waste of time",
    "far too long",
    "hardly worth the money",
    "annoying",
    "hopeless",
    "pointless",
    "bland",
    "dreary",
    "unfair",
    "ridiculous",
]
VIEWS = [
    "{Thing} is {view}.",
    "{Thing} was {view}.",
    "I think {thing} is {view}.",
    "In my opinion {thing} is {view}.",
    "{Thing} is {view} and {other}.",
    "Nothing is as {word} as {thing}.",
    "{Thing} seems {view} to me.",
    "{Thing} deserves more praise.",
    "{Thing} deserves far less praise than it gets.",
    "I have never known anything so {word} as {thing}.",
    "What {thing} needs is more heart.",
    "{Thing} ought to be far better known.",
    "Everyone should love {thing}.",
    "{Thing} is {view}, and the rest is {other}.",
    "No one could call {thing} {word}.",
    "{Thing} is too {word} for my taste.",
    "{Thing} is the most {word} in the whole country.",
    "I liked {thing} more than I can say.",
    "I could not bear {thing}.",
    "{Thing} is {view}, which is a shame.",
    "How {word} {thing} is!",
]
DEEDS = [
    "{Thing} was in the news in {month}.",
    "{Thing} was mentioned in the paper on {day}.",
    "The report on {thing} has {number} pages.",
    "They spoke about {thing} for {number} minutes.",
    "A photograph of {thing} hangs in the town hall.",
    "He wrote a letter about {thing} and posted it on {day}.",
    "She asked about {thing} at the office.",
    "A notice about {thing} is pinned to the door.",
    "A film about {thing} was made in {year}.",
    "{Hundred} people wrote to the paper about {thing}.",
    "The talk about {thing} starts at six on {day}.",
    "In {month} they learned about {thing} from a friend in {place}.",
    "The drawing of {thing} was sold for {hundred} pounds in {place}.",
    "The council voted on {thing} in {year}.",
    "Two boys drew a picture of {thing} on the wall.",
    "The first page of the book shows {thing}.",
    "On {day} the mayor's son asked the way to {thing}.",
    "A reporter from {place} wrote {number} lines about {thing}.",
    "The song about {thing} was recorded in {place} in {year}.",
    "He saw {thing} on {day} for the first time in {number} years.",
]
PLACES = """
    Spain Norway London Wales Italy Kenya Canada Poland Japan Peru Cornwall Texas
""".split()
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
MONTHS = """
    January February March April May June July August September October November December
""".split()


def write_claim(rng: Random) -> tuple[str, str]:
    """Return a sentence and whether it is a fact or an opinion."""
    thing = rng.choice(THINGS)
    words = {"thing": thing, "Thing": thing[0].upper() + thing[1:]}
    if rng.random() < 0.7:  # the public facts outnumber the public opinions
        return _write_view(words, rng=rng), "opinion"
    hundred = str(rng.randint(2, 40) * 100)
    found = {
        "year": str(rng.randint(1850, 2020)),
        "number": rng.choice(["two", "three", "four", "six", "ten", "12", "15", "30"]),
        "hundred": hundred,
        "Hundred": hundred,
        "day": rng.choice(DAYS),
        "month": rng.choice(MONTHS),
        "place": rng.choice(PLACES),
    }
    return rng.choice(DEEDS).format(**words, **found), "fact"


def _write_view(words: dict[str, str], *, rng: Random) -> str:
    # Praise and blame alike are opinions: the label must tell nothing of which it is.
    judgements = rng.choice([GOOD, BAD])
    single = [judgement for judgement in judgements if " " not in judgement]
    word, other = rng.sample(single, 2)
    return rng.choice(VIEWS).format(**words, view=rng.choice(judgements), word=word, other=other)
