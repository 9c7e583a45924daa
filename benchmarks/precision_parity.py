"""Whether computing in bf16 learns as well as fp32: the loss on validation rows after an epoch of sst2, side by side.

python -m benchmarks.precision_parity
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]


def main() -> None:
    """Prints a table: each method's last validation loss in both precisions."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=TOP.parent / "shared", help="the folder with data/")
    parser.add_argument("--methods", nargs="+", default=["lora", "full"])
    options = parser.parse_args()
    print("| method | fp32, nats a token | bf16 | difference | seconds of training, fp32 | bf16 |")
    print("|---|---|---|---|---|---|")
    for method in options.methods:
        (plain, plain_seconds), (mixed, mixed_seconds) = (
            trained(method, precision=precision, data=options.shared.resolve() / "data" / "sst2")
            for precision in ("fp32", "bf16")
        )
        change = mixed / plain - 1
        print(f"| {method} | {plain:.4f} | {mixed:.4f} | {change:+.2%} | {plain_seconds:.0f} | {mixed_seconds:.0f} |")


def trained(method: str, *, precision: str, data: Path) -> tuple[float, float]:
    """Returns the loss on all validation rows after one epoch, and the seconds of its training."""
    folder = Path(tempfile.mkdtemp(prefix="parity_")) / "run"
    subprocess.run(
        [
            sys.executable, str(TOP / "train.py"), f"method={method}", "data=sst2", f"data.path={data}", "epochs=1",
            f"precision={precision}", "data.max_validation=10000", "data.retained=[]", "logger=none",
            f"hydra.run.dir={folder}",
        ],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    loss = [line["val/loss"] for line in lines if "val/loss" in line][-1]
    seconds = json.loads((folder / "result.json").read_text(encoding="utf-8"))["cost"]["train_seconds"]
    return float(loss), float(seconds)


if __name__ == "__main__":
    main()
