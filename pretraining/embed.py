"""Puts a pretrained model into the package: weights in bf16, so that they take half the room.

python pretraining/embed.py outputs/runs/DATE/RUN
"""

import argparse
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

TINY = Path(__file__).resolve().parents[1] / "src/forgetmenot/assets/tiny"


def main() -> None:
    """Writes the weights, the configuration and the tokenizer of a finished run to the assets."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run", type=Path, help="the folder of a finished run of experiment=pretrain_tiny")
    folder = parser.parse_args().run / "model"
    AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).save_pretrained(TINY)
    AutoTokenizer.from_pretrained(folder).save_pretrained(TINY)
    print(f"{sum(file.stat().st_size for file in TINY.iterdir()) / 1e6:.1f} MB in {TINY}")


if __name__ == "__main__":
    main()
