"""Training speed beside peers: each contender in a process of its own, in turn, so that all see the same machine.

make bench-env                             environments with the peers
make bench                                 every setting, hours on 2 cores; BENCH="--json FILE" keeps the figures
python -m benchmarks.train_speed --settings llama-15m:lora:sst2:grouped
"""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median

import torch

from benchmarks.workload import SHAPES, Workload, flops_per_token, read

REPEATS = 3
STEPS = {"sst2": (30, 3), "dialogsum": (3, 1)}  # measured, and before them to warm up
STEPS_OF_LARGE = {"sst2": (8, 1), "dialogsum": (2, 1)}  # of shapes that take seconds a step on a CPU
LARGE = 500  # hidden size from which a shape is one of them
ALL = ("trainer", "sft", "litgpt")
SETTINGS = {
    "llama-15m:lora:sst2:grouped": ALL,
    "llama-15m:lora:dialogsum:grouped": ALL,
    "llama-15m:lora:sst2:mixed": ALL[:1],
    "llama-15m:lora:dialogsum:mixed": ALL[:1],
    "smollm2-135m:lora:sst2:grouped": ALL[:1],
    "smollm2-135m:full:sst2:grouped": ALL[:1],
    "smollm2-135m:lora:dialogsum:grouped": ALL[:1],
    "tiny:lora:sst2:mixed": ALL[:2],
}
"""What is measured on a CPU, and beside which peers: where those would take hours, beside the fastest of them alone."""
GPU_SETTINGS = {
    f"{shape}:{method}:{data}:grouped": ALL[:2]
    for shape in ("qwen2.5-0.5b", "llama-3.2-1b")
    for method in ("lora", "full")
    for data in ("sst2", "dialogsum")
}
VARIANTS = {
    "trainer": ("best", "sdpa", "pure"),
    "sft": ("best", "sdpa", "padding_free", "packing"),
    "litgpt": ("best",),
}
"""Ways to set a peer that are tried once for each setting: the fastest is repeated. `pure` is bf16 without autocast."""
GPU_VARIANTS = {"trainer": ("best", "sdpa", "liger"), "sft": ("sdpa", "padding_free", "packing", "liger")}
LITGPT = Path(".venv-bench-litgpt/bin/python")  # its dependencies and transformers 5's exclude each other


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What one contender reached in one setting."""

    contender: str
    variant: str
    tokens_per_second: tuple[float, ...]
    peak_bytes: tuple[int, ...]


def main() -> None:
    """Measures the settings and prints a table of each."""
    default = GPU_SETTINGS if torch.cuda.is_available() else SETTINGS
    options = parsed(default)
    machine = f"{processor()}, {options.threads} threads, torch {torch.__version__}"
    peak = matmul_peak(options.threads)
    print(f"{machine}; matrix products reach {peak / 1e9:,.0f} GFLOP/s in bf16\n")
    measured = []
    for setting in options.settings:
        work = workload(setting, options)
        peers = default.get(setting, ALL) if options.peers is None else options.peers
        entries = list(contest(work, peers=[peer for peer in peers if can_train(peer, work)]))
        print_table(setting, entries, work=work, peak=peak)
        measured.append({"setting": setting, "peak_flops": peak, "entries": [asdict(entry) for entry in entries]})
        if options.json:
            options.json.write_text(json.dumps({"machine": machine, "settings": measured}, indent=1))


def parsed(default: Mapping[str, Sequence[str]]) -> argparse.Namespace:
    """Returns the command line; `default` settings where none are given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--settings", nargs="+", default=list(default), help="shape:method:data:grouped or mixed")
    parser.add_argument("--peers", nargs="*", choices=ALL, help="instead of each setting's own")
    parser.add_argument("--json", type=Path, help="a file for the figures")
    parser.add_argument("--shared", default="../shared", help="the folder with data/ and models/")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    return parser.parse_args()


def workload(setting: str, options: argparse.Namespace) -> Workload:
    """Returns the workload that a setting names."""
    shape, method, data, grouped = setting.split(":")
    if shape not in SHAPES or data not in STEPS:
        raise SystemExit(f"a setting must be shape:method:data:grouped of {', '.join(SHAPES)}, got {setting}")
    large = SHAPES[shape]["hidden"] >= LARGE and not torch.cuda.is_available()
    steps, warmup = (STEPS_OF_LARGE if large else STEPS)[data]
    return Workload(
        shape=shape, data=data, method=method, grouped=grouped == "grouped", variant="best", steps=steps,
        warmup=warmup, batch_size=16, seed=0, shared=str(Path(options.shared).resolve()), threads=options.threads,
    )  # fmt: skip


def can_train(peer: str, work: Workload) -> bool:
    """Tells whether a peer takes the workload and is installed; litgpt is measured with LoRA, on CPUs."""
    if peer != "litgpt":
        return True
    return work.method == "lora" and not torch.cuda.is_available() and LITGPT.exists()


def contest(work: Workload, *, peers: list[str]) -> Iterator[Entry]:
    """Yields what each contender reached: peers first tried in every variant, then all in turn, REPEATS times.

    A peer that lacks memory cuts its steps into passes; ours plans them.
    """
    chosen = {"ours": work, "plain": work}
    variants = GPU_VARIANTS if torch.cuda.is_available() else VARIANTS
    for peer in peers:
        ways = [variant for variant in variants[peer] if variant != "pure" or work.method == "lora"]
        trials = {variant: fitting(peer, replace(work, variant=variant)) for variant in ways}
        chosen[peer] = max(trials.values(), key=lambda trial: trial.result["tokens_per_second"]).work
        as_it_comes = fitting(peer, replace(work, variant="plain", steps=max(2, work.steps // 3)))
        yield entry(peer, f"as it comes{cut(as_it_comes.work)}", [as_it_comes.result])
    results: dict[str, list[dict[str, float]]] = {name: [] for name in chosen}
    for repeat in range(REPEATS):
        for name, way in chosen.items():
            results[name].append(run(name, replace(way, seed=repeat)))
    for name, way in chosen.items():
        yield entry(name, f"{way.variant}{cut(way)}", results[name])


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A workload as a contender could take it, and what it reached."""

    work: Workload
    result: dict[str, float]


def fitting(contender: str, work: Workload) -> Trial:
    """Returns what a contender reached, its steps cut into as many passes as memory asks for."""
    while True:
        try:
            return Trial(work=work, result=run(contender, work))
        except MemoryError:
            if work.accumulate == work.batch_size:
                raise
            work = replace(work, accumulate=2 * work.accumulate)
            print(f"  {contender} ran out of memory: steps in {work.accumulate} passes", file=sys.stderr, flush=True)


def cut(work: Workload) -> str:
    """Returns how a name tells of steps cut into passes."""
    return f", in {work.accumulate} passes" if work.accumulate > 1 else ""


def run(contender: str, work: Workload) -> dict[str, float]:
    """Returns what one process measured."""
    started = time.perf_counter()
    python = str(LITGPT) if contender == "litgpt" else sys.executable
    done = subprocess.run(
        [python, "-W", "ignore", "-m", f"benchmarks.contenders.{contender}", json.dumps(asdict(work))],
        env={**os.environ, "OMP_NUM_THREADS": str(work.threads), "HF_HUB_OFFLINE": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode == -signal.SIGKILL:  # by the kernel, which has no memory left
        raise MemoryError(f"{contender} ({work.variant}) took more memory than there is")
    if done.returncode:
        raise SystemExit(f"{contender} ({work.variant}) failed:\n{done.stderr[-2000:]}")
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    told = f"{contender} ({work.variant}): {result['tokens_per_second']:,.0f} tokens a second"
    print(f"  {told}, {time.perf_counter() - started:.0f} s in all", file=sys.stderr, flush=True)
    return result


def entry(contender: str, variant: str, results: list[dict[str, float]]) -> Entry:
    """Returns the results of one contender as one entry."""
    return Entry(
        contender=contender,
        variant=variant,
        tokens_per_second=tuple(round(result["tokens_per_second"], 1) for result in results),
        peak_bytes=tuple(int(result["peak_bytes"]) for result in results),
    )


def print_table(setting: str, entries: list[Entry], *, work: Workload, peak: float) -> None:
    """Prints medians, the spread, and ours as a multiple."""
    operations = flops_per_token(work, read(work))
    ours = next(median(e.tokens_per_second) for e in entries if e.contender == "ours")
    print(f"### {setting}\n")
    print("| contender | tokens a second, median | lowest to highest | share of matmul peak | peak memory | ours is |")
    print("|---|---|---|---|---|---|")
    for each in entries:
        speed = median(each.tokens_per_second)
        spread = f"{min(each.tokens_per_second):,.0f} to {max(each.tokens_per_second):,.0f}"
        memory = f"{median(each.peak_bytes) / 1e9:.2f} GB"
        name = f"{each.contender} ({each.variant})"
        print(
            f"| {name} | {speed:,.0f} | {spread} | {speed * operations / peak:.1%} | {memory} | {ours / speed:.2f} x |"
        )
    print(flush=True)


def matmul_peak(threads: int) -> float:
    """Returns the operations a second of a large bf16 matrix product here, the best of ten."""
    torch.set_num_threads(threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    size = 8192 if device == "cuda" else 2048
    left, right = (torch.randn(size, size, dtype=torch.bfloat16, device=device) for _ in range(2))
    seconds = []
    for _ in range(10):
        started = time.perf_counter()
        left @ right
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return 2 * size**3 / min(seconds)


def processor() -> str:
    """Returns the name of what computes."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return names[0] if names else platform.processor()


if __name__ == "__main__":
    main()
