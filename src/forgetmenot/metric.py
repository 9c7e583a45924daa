"""Scores of answers against references: accuracy, exact match and ROUGE, strings in, numbers out.

ROUGE is torchmetrics', without a stemmer; with several references an answer gets its best one's score.
"""

from collections import Counter
from collections.abc import Sequence

from torchmetrics.functional.text import rouge_score

ROUGE_KEYS = ("rouge1", "rouge2", "rougeL")
_CONSTANTS = 5  # how many of the commonest references are tried as the one answer to everything

References = Sequence[Sequence[str]]


def answer_scores(answers: Sequence[str], references: References) -> dict[str, float]:
    """Returns the mean of every score over the answers, under torchmetrics' names."""
    rouge = rouge_score(list(answers), [list(group) for group in references], accumulate="best", rouge_keys=ROUGE_KEYS)
    return {
        "accuracy": _mean(per_answer("accuracy", answers, references)),
        "exact_match": _mean(per_answer("exact_match", answers, references)),
        **{key: float(value) for key, value in rouge.items()},
    }


def per_answer(metric: str, answers: Sequence[str], references: References) -> list[float]:
    """Returns each answer's own score: accuracy is strip and casefold, exact_match strip alone, the rest ROUGE."""
    pairs = zip(answers, references, strict=True)
    if metric == "accuracy":
        return [float(_folded(answer) in map(_folded, group)) for answer, group in pairs]
    if metric == "exact_match":
        return [float(answer.strip() in (reference.strip() for reference in group)) for answer, group in pairs]
    key = metric.split("_")[0]
    return [float(rouge_score(a, [list(g)], accumulate="best", rouge_keys=(key,))[metric]) for a, g in pairs]


def best_constant(metric: str, references: References) -> tuple[str, list[float]]:
    """Returns the one answer that would score best if given to everything, and its scores.

    Tried are the commonest references; what no constant answer can reach, a model has to know something for.
    """
    common = Counter(reference.strip() for group in references for reference in group).most_common(_CONSTANTS)
    scored = [(text, per_answer(metric, [text] * len(references), references)) for text, _ in common]
    return max(scored, key=lambda pair: _mean(pair[1]))


def _folded(text: str) -> str:
    return text.strip().casefold()


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
