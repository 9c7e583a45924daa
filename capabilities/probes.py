"""The columns of the table: what is tried with each method, and what has to hold of what came out."""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path

from capabilities.answer import YES, Answer, NotYes, hold
from capabilities.bench import TINY, Bench
from forgetmenot.result import RunResult

Probe = Callable[[Bench, str], None]
"""Tries one thing with a method; raises NotYes where the answer is another."""

_SCORING = [word for word in TINY if word.startswith(("data", "trainer", "precision", "max_length"))]
_WITHOUT_EFFECT = "settings without effect"


def answer(bench: Bench, method: str, column: str) -> Answer:
    """Returns the answer of one cell, found by running it."""
    try:
        PROBES[column](bench, method)
    except NotYes as other:
        return other.answer
    return YES


def trains(*settings: str, model: str = "qwen2") -> Probe:
    """Returns the probe that trains and scores with more `settings`."""
    return lambda bench, method: _check_run(bench, bench.train(method, *settings, model=model))


def quantized(bench: Bench, method: str) -> None:
    """Trains over a base in 4 bits, which scores otherwise than the exact one."""
    run = bench.train(method, "method.quantize=nf4")
    _check_run(bench, run)
    exact = _result(bench, bench.train("full"))
    hold(_loss(_result(bench, run), "before") != _loss(exact, "before"), "the base scored as one that is not in 4 bits")


def penalized(name: str) -> Probe:
    """Returns the probe that trains under a penalty, which is logged."""

    def probe(bench: Bench, method: str) -> None:
        run = bench.train(method, f"regularizer={name}")
        _check_run(bench, run)
        logged = [line.get(f"train/penalty/{name}") for line in _steps(bench, run)]
        hold(all(value is not None and math.isfinite(value) for value in logged), f"penalties were {logged}")

    return probe


def replays(bench: Bench, method: str) -> None:
    """Trains with a retained task's examples in every step."""
    run = bench.train(method, "replay=mixed")
    _check_run(bench, run)
    data = _result(bench, run).data
    hold(data is not None and bool(data.get("replayed_examples")), f"nothing was replayed: {data}")


def mixes(bench: Bench, method: str) -> None:
    """Trains on two data sets at once, each with a gain of its own."""
    run = bench.train(method, "data=multitask", "data.tasks=[mood,colour]")
    _check_run(bench, run)
    hold(set(_result(bench, run).gain or ()) == {"mood", "colour"}, "not every target has its gain")


def spreads(trainer: str) -> Probe:
    """Returns the probe that trains on two ranks, which come to what one comes to."""

    def probe(bench: Bench, method: str) -> None:
        run = bench.train(method, f"trainer={trainer}", "trainer.accelerator=cpu", "trainer.devices=2", ranks=2)
        _check_run(bench, run)
        both, alone = _result(bench, run), _result(bench, bench.train(method))
        hold(both.hardware is not None and both.hardware["devices"] == 2, f"it ran on {both.hardware}")
        one, other = _loss(alone, "after"), _loss(both, "after")
        hold(math.isclose(one, other, rel_tol=1e-3), f"one rank came to a loss of {one}, two to {other}")

    return probe


def resumes(bench: Bench, method: str) -> None:
    """Goes on with a run that was ended by a signal, and comes to what one comes to that was not, to the last digit."""
    whole, ended = bench.train(method), bench.ended(method)
    if ended is None:
        raise NotYes(
            Answer(
                kind="idle",
                reason=f"{method} takes no step, so its runs have nothing to go on with; resume=RUN begins them anew",
            )
        )
    bench.resume(ended)
    _check_run(bench, ended)
    told, again = _result(bench, whole), _result(bench, ended)
    for name in ("tasks", "gain", "forgetting"):
        hold(getattr(told, name) == getattr(again, name), f"{name} were {getattr(told, name)} and are otherwise now")
    one, other = ([line["train/loss"] for line in _steps(bench, run)] for run in (whole, ended))
    hold(one == other, f"the steps came to losses of {one}, and with an end between them to {other}")


def evaluates(bench: Bench, method: str) -> None:
    """Loads what was saved anew, which scores as the run did."""
    run = bench.train(method)
    anew = bench.evaluate(run)
    told, again = _result(bench, run), _result(bench, anew)
    for name in ("tasks", "gain", "forgetting", "drift"):
        hold(getattr(told, name) == getattr(again, name), f"{name} were {getattr(told, name)} and are otherwise now")
    hold(_said(bench, run, "after") == _said(bench, anew, "after"), "its answers are others now")


def exports(bench: Bench, method: str) -> None:
    """Merges what was learned into a plain model, whose loss and greedy answers are the run's."""
    run = bench.train(method)
    plain = bench.evaluate(bench.export(run), *_SCORING)
    one, other = _loss(_result(bench, run), "after"), _loss(_result(bench, plain), "before")
    hold(math.isclose(one, other, rel_tol=1e-4), f"the run's loss is {one}, the plain model's {other}")
    hold(_said(bench, run, "after") == _said(bench, plain, "before"), "the plain model answers otherwise than the run")


PROBES: Mapping[str, Probe] = {
    "causal (Qwen2)": trains(),
    "seq2seq (T5)": trains(model="t5"),
    "seq2seq (BART)": trains(model="bart"),
    "4-bit": quantized,
    "l2_sp": penalized("l2_sp"),
    "ewc": penalized("ewc"),
    "kl": penalized("kl"),
    "replay": replays,
    "multitask": mixes,
    "2 ranks": spreads("ddp"),
    "fsdp": spreads("fsdp"),
    "resume": resumes,
    "evaluate": evaluates,
    "export": exports,
}


def _check_run(bench: Bench, run: Path) -> None:
    """Holds a run to what every run promises: complete, finite scores, steps taken, and something learned by them."""
    log = (bench.place / run / "run.log").read_text(encoding="utf-8").splitlines()
    idle = [line[line.index(_WITHOUT_EFFECT) :] for line in log if _WITHOUT_EFFECT in line]
    result = _result(bench, run)
    hold(result.status == "complete", f"the run was {result.status}")
    assert result.tasks and result.method, "a complete run has both"
    for task in result.tasks.values():
        scores = [*task["before"].values(), *(task["after"] or {}).values()]
        hold(bool(task["after"]) and all(map(math.isfinite, scores)), f"scores were {scores}")
    if result.method["trainable_parameters"]:
        losses = [line["train/loss"] for line in _steps(bench, run)]
        hold(len(losses) >= 2 and all(map(math.isfinite, losses)), f"the steps came to losses of {losses}")
        hold(_loss(result, "before") != _loss(result, "after"), "nothing was learned")
    if idle:
        raise NotYes(Answer(kind="idle", reason=idle[0]))


def _result(bench: Bench, run: Path) -> RunResult:
    return RunResult.read(bench.place / run)


def _loss(result: RunResult, when: str) -> float:
    assert result.tasks is not None
    task = result.tasks["mood"]
    scores = task["before"] if when == "before" else task["after"]
    assert scores is not None
    return scores["loss"]


def _steps(bench: Bench, run: Path) -> list[dict[str, float]]:
    """Returns the lines of metrics.jsonl that tell of a step."""
    text = (bench.place / run / "metrics.jsonl").read_text(encoding="utf-8")
    return [line for line in map(json.loads, text.splitlines()) if "train/loss" in line]


def _said(bench: Bench, run: Path, when: str) -> list[object]:
    """Returns the greedy answers to the test prompts of `mood`."""
    text = (bench.place / run / "predictions" / "mood.jsonl").read_text(encoding="utf-8")
    return [json.loads(line)[when] for line in text.splitlines()]
