"""What holds for every test: no network, one thread."""

import os
import sys

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from absl import logging as absl_logging

torch.set_num_threads(1)

# rouge-score brings absl, whose handler takes pytest's captured stderr and closes it when Hydra sets up logging anew.
absl_logging.get_absl_handler().python_handler.stream = sys.__stderr__
