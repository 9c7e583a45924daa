"""Run folders as a run leaves them, written without running."""

import json
from pathlib import Path

import yaml

from forgetmenot.result import RunResult


def write_run(folder: Path, *settings: str, seed: int = 0, after: float = 0.8, status: str = "complete") -> None:
    """Writes a run that took half of `names` along and answered "positive" to its one prompt."""
    method = next((word.partition("=")[2] for word in settings if word.startswith("method=")), "lora")
    RunResult(
        status=status,  # type: ignore[arg-type]
        name=folder.name,
        overrides=["data=mood", *settings, f"seed={seed}"],
        seed=seed,
        model={"name": "tiny", "architecture": "causal", "parameters": 1000},
        data={
            "name": "mood", "train_examples": 4, "validation_examples": 4, "test_examples": 4,
            "truncated": 0, "dropped": 0,
        },
        method={
            "name": method, "lr": 0.1, "trainable_parameters": 10, "trainable_percent": 1.25, "saved_bytes": 5,
        },
        cost={
            "train_seconds": 12.0, "train_tokens": 9, "train_tokens_per_second": 3.0,
            "peak_memory_bytes": 1_250_000_000, "evaluate_seconds": 1.0, "prompt_tokens_per_example": 4.0,
        },
        tasks={
            "mood": {
                "role": "target", "metric": "accuracy", "examples": 4,
                "before": {"accuracy": 0.3}, "after": {"accuracy": after},
            },
            "names": {
                "role": "retained", "metric": "accuracy", "examples": 1, "counted": True, "reason": None,
                "before": {"accuracy": 1.0}, "after": {"accuracy": 0.5},
            },
        },
        gain={"mood": after - 0.3},
        gain_mean=after - 0.3,
        forgetting={"tasks": {"names": 0.5}, "mean": 0.5},
    ).write(folder)  # fmt: skip
    keys = dict(word.split("=") for word in settings)
    (folder / "config.yaml").write_text(yaml.safe_dump({"seed": seed, "hydra": {"dir": str(folder)}, **keys}))
    (folder / "predictions").mkdir()
    line = {"prompt": "I am Ada.\nWho?", "references": ["Ada"], "before": "Ada", "after": f"{method} says positive"}
    (folder / "predictions" / "names.jsonl").write_text(json.dumps(line) + "\n")
