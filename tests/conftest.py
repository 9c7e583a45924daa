"""What holds for every test: no network, one thread, a cache of its own."""

import os
import sys
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["FORGETMENOT_CACHE"] = tempfile.mkdtemp(prefix="forgetmenot_tests_")

import pytest
import torch
from absl import logging as absl_logging

torch.set_num_threads(1)

# rouge-score brings absl, whose handler takes pytest's captured stderr and closes it when Hydra sets up logging anew.
absl_logging.get_absl_handler().python_handler.stream = sys.__stderr__

LONGEST = ("test_forgetting_story.py", "test_real.py", "test_pretraining.py", "test_probe.py", "test_embedded.py")
"""Files that take minutes: make test-slow starts them first, so that no core waits for the last of them."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the longest files in front, in that order."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(LONGEST)))
