"""Mends the writing of the sources: plain quotes, whole sentences, tokens joined again, capitals put back."""

import html
import re
import unicodedata
from collections.abc import Sequence

# Books are typeset in several hands; one plain hand saves a tiny vocabulary from learning each. \x82 and \x88 are
# letters of an old DOS code page that the transcribers left behind.
PLAIN = str.maketrans({"“": '"', "”": '"', "‘": "'", "’": "'", "\x82": "é", "\x88": "ê", "\u00a0": " "})
SENTENCE_END = re.compile(r"(?<=[.!?])[\"')]*\s+(?=[\"'(]*[A-Z])")
ABBREVIATION = re.compile(r"\b(Mr|Mrs|Dr|St|Esq|No|M|Mme|Messrs|[A-Z])\.$")
RUDE = re.compile(r"fuck|shit\b|bitch|cunt|nigg|whore|slut|pussy|porn|asshole|faggot|bastard|\b(sex\w*|raped?)\b", re.I)


def plain_quotes(text: str) -> str:
    """Return the text with straight quotes and without the transcribers' slips."""
    return text.translate(PLAIN)


def join_wrapped(text: str) -> str:
    """Return the text with one line per paragraph."""
    return re.sub(r"[ \t]+", " ", re.sub(r"(?<!\n)\n(?!\n)", " ", text)).strip()


def split_sentences(text: str) -> list[str]:
    """Return the whole, well-formed sentences of a text, those with open quotes or brackets left out."""
    sentences: list[str] = []
    for paragraph in text.split("\n"):
        start = 0
        for end in SENTENCE_END.finditer(paragraph):
            if ABBREVIATION.search(paragraph[: end.start()]):
                continue
            sentences.append(paragraph[start : end.start()])
            start = end.end()
        sentences.append(paragraph[start:])
    stripped = (strip_quotes(sentence) for sentence in sentences)
    return [sentence for sentence in stripped if is_whole(sentence)]


def strip_quotes(sentence: str) -> str:
    """Return a sentence without the quotes that open or close around it, or that its neighbours left open."""
    sentence = sentence.strip().strip("'_ ").rstrip("-")
    return sentence.strip('"').strip() if sentence.count('"') % 2 else sentence


def is_whole(sentence: str) -> bool:
    """Whether a sentence begins with a capital, ends with a mark, and holds nothing typographic or quoted by halves."""
    begins = re.match(r"\"?[A-Z][A-Za-z]*[ ,']", sentence) is not None
    ends = re.search(r"[a-z][.!?]\"?$", sentence) is not None
    odd = re.search(r"[_*\[\]()|`{}=<>#]|(^|\s|-|\")'|[.,!?;-]'|[A-Z]{4}", sentence) is not None
    return begins and ends and not odd and sentence.count('"') % 2 == 0


def join_tokens(tokens: Sequence[str]) -> str:
    """Return treebank-style tokens as natural writing."""
    text = " ".join(tokens).replace("``", '"').replace("''", '"')
    text = re.sub(r" ([,.;:!?%)\]}]+)(?=\s|$)", r"\1", text)
    text = re.sub(r"([(\[{$£#@]) ", r"\1", text)
    text = re.sub(r" ?(n't|'s|'re|'ve|'m|'ll|'d)\b", r"\1", text.replace(" ’ ", "'").replace("’", "'"))
    return re.sub(r'" ([^"]*?) ?"', r'"\1"', text).strip()


def write_naturally(sentence: str, *, proper: frozenset[str], common: frozenset[str]) -> str:
    """Return a down-cased, tokenized sentence as a person would write it: `proper` are names, `common` never."""
    text = join_tokens(re.sub(r"(?<= \w) \.(?= \w \.)", ".", html.unescape(sentence)).split())
    text = re.sub(r"\bi\b", "I", text.replace(" -- ", " - "))
    words = re.split(r"\b([a-z]+)\b", text)  # words at the odd places
    for place in range(1, len(words), 2):
        word = words[place].capitalize()
        # After a first name, a word that nobody writes small is a last name.
        last = place > 2 and words[place - 1] == " " and words[place - 2] in proper and len(word) > 2
        if word in proper or (last and words[place] not in common):
            words[place] = word
    return re.sub(r"(^|[.!?]\s+)([\"'(]*)([a-z])", lambda found: found[1] + found[2] + found[3].upper(), "".join(words))


def fold(text: str) -> str:
    """Return the text's letters and digits alone, lower-case and without accents: how two texts are compared."""
    ascii_text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "", ascii_text)


def folded_words(text: str) -> list[str]:
    """Return the lower-case words of a text without apostrophes; "don't" and "do n't" fold alike."""
    joined = re.sub(r"(\w) ?n't\b", r"\1nt", text.lower().replace("’", "'")).replace(" '", "'")
    return re.findall(r"[a-z0-9]+", joined.replace("'", ""))


def word_runs(words: Sequence[str], *, length: int) -> set[tuple[str, ...]]:
    """Return every run of `length` words."""
    return {tuple(words[i : i + length]) for i in range(len(words) - length + 1)}
