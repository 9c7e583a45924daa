"""Whether computing in bf16 learns as well as fp32: the loss on validation rows after an epoch of sst2, side by side.

python -m benchmarks.precision_parity
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import mean

TOP = Path(__file__).resolve().parents[1]


def main() -> None:
    """Prints a table: each method's last validation loss in both precisions, for each seed and their mean."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=TOP.parent / "shared", help="the folder with data/")
    parser.add_argument("--methods", nargs="+", default=["lora", "full"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    options = parser.parse_args()
    data = options.shared.resolve() / "data" / "sst2"
    print("| method | seed | fp32, nats a token | bf16 | difference |")
    print("|---|---|---|---|---|")
    for method in options.methods:
        pairs = []
        for seed in options.seeds:
            plain, mixed = (trained(method, precision=p, seed=seed, data=data) for p in ("fp32", "bf16"))
            pairs.append((plain, mixed))
            print(f"| {method} | {seed} | {plain:.4f} | {mixed:.4f} | {mixed / plain - 1:+.2%} |", flush=True)
        plain, mixed = (mean(column) for column in zip(*pairs, strict=True))
        print(f"| **{method}** | mean | {plain:.4f} | {mixed:.4f} | {mixed / plain - 1:+.2%} |", flush=True)


def trained(method: str, *, precision: str, seed: int, data: Path) -> float:
    """Returns the loss on all validation rows after one epoch."""
    folder = Path(tempfile.mkdtemp(prefix="parity_")) / "run"
    subprocess.run(
        [
            sys.executable, str(TOP / "train.py"), f"method={method}", "data=sst2", f"data.path={data}", "epochs=1",
            f"precision={precision}", f"seed={seed}", "data.max_validation=10000", "data.retained=[]", "logger=none",
            f"hydra.run.dir={folder}",
        ],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return float([line["val/loss"] for line in lines if "val/loss" in line][-1])


if __name__ == "__main__":
    main()
