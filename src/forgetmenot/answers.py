"""Scores of answers against references: strings in, numbers out.

With several references an answer gets its best one's score; ROUGE can take the mean of all instead.
"""

import re
import string
import warnings
from collections import Counter
from collections.abc import Sequence

from forgetmenot.rouge import ROUGE_KEYS, Accumulate, Overlap, rouge, split_words

ROUGE_NAMES = tuple(f"{key}_{kind}" for key in ROUGE_KEYS for kind in Overlap._fields)
ANSWER_NAMES = ("accuracy", "exact_match", "token_f1", *ROUGE_NAMES)

_CONSTANTS = 5  # how many of the commonest references are tried as the one answer to everything
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)

References = Sequence[Sequence[str]]


def answer_scores(answer: str, references: Sequence[str], *, accumulate: Accumulate = "best") -> dict[str, float]:
    """Returns all scores of one answer, under ANSWER_NAMES.

    accuracy: equal to a reference but for case and edges; exact_match: but for edges; token_f1: see there.
    """
    return {
        "accuracy": _accuracy(answer, references),
        "exact_match": _exact_match(answer, references),
        "token_f1": max(token_f1(answer, reference) for reference in references),
        **rouge(answer, references, accumulate=accumulate),
    }


def per_answer(
    metric: str, answers: Sequence[str], references: References, *, accumulate: Accumulate = "best"
) -> list[float]:
    """Returns each answer's own score by one metric."""
    pairs = zip(answers, references, strict=True)
    if metric == "accuracy":
        return [_accuracy(*pair) for pair in pairs]
    if metric == "exact_match":
        return [_exact_match(*pair) for pair in pairs]
    if metric == "token_f1":
        return [max(token_f1(answer, reference) for reference in group) for answer, group in pairs]
    return [rouge(*pair, keys=(metric.split("_")[0],), accumulate=accumulate)[metric] for pair in pairs]


def token_f1(answer: str, reference: str) -> float:
    """Returns the harmonic mean of precision and recall of words, as SQuAD has it (Rajpurkar et al. 2016, section 6.1).

    Without case, punctuation and articles; two texts without a word left are equal.
    """
    ours, theirs = (_ARTICLES.sub(" ", t.lower().translate(_PUNCTUATION)).split() for t in (answer, reference))
    if not ours or not theirs:
        return float(ours == theirs)
    return Overlap.of((Counter(ours) & Counter(theirs)).total(), answer=len(ours), reference=len(theirs)).fmeasure


def best_constant(metric: str, references: References, *, accumulate: Accumulate = "best") -> tuple[str, list[float]]:
    """Returns the one answer that would score best if given to everything, and its scores.

    Tried are the commonest references; what no constant answer can reach, a model has to know something for.
    """
    common = Counter(reference.strip() for group in references for reference in group).most_common(_CONSTANTS)
    alike = [(text, [text] * len(references)) for text, _ in common]
    scored = [(text, per_answer(metric, said, references, accumulate=accumulate)) for text, said in alike]
    return max(scored, key=lambda pair: sum(pair[1]))


def warn_of_unseen_letters(task: str, references: References) -> None:
    """Warns where ROUGE cannot see references, since their letters are none of a to z."""
    texts = [reference for group in references for reference in group]
    unseen = sum(not split_words(text) and any(map(str.isalnum, text)) for text in texts)
    if unseen:
        warnings.warn(
            f"ROUGE sees the letters a to z and digits alone: {unseen} of {len(texts)} references of {task} have none "
            "and score 0 even if matched; data.metric=token_f1 or accuracy sees all letters",
            stacklevel=2,
        )


def _accuracy(answer: str, references: Sequence[str]) -> float:
    return float(_folded(answer) in map(_folded, references))


def _exact_match(answer: str, references: Sequence[str]) -> float:
    return float(answer.strip() in (reference.strip() for reference in references))


def _folded(text: str) -> str:
    return text.strip().casefold()
