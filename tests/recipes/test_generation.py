"""Answers of the embedded model in batches are those to each prompt alone, with every method."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from tiny_runs import finish

from forgetmenot.cli.setup import Setup, set_up
from forgetmenot.cli.wiring import load_adapted
from forgetmenot.config.paths import register_resolvers
from forgetmenot.data.examples import scoring_set
from forgetmenot.generate import Prefix, answer

pytestmark = pytest.mark.slow

PROMPTS, BATCH = 320, 25  # all test rows: of 200 three near ties are more than a hundredth


def answers(setup: Setup, folder: Path, *, batch: int, precision: str, shares: bool) -> list[str]:
    """Returns the answers of a run's model to all prompts, so many at a time, sorted by length as a run does."""
    module = load_adapted(setup, folder)
    if precision == "fp32":
        module.model.float()
    module.eval()
    task = setup.target.task
    rows = scoring_set(task, setup.target.test[:PROMPTS], encoder=setup.encoder).rows.rows
    collator = replace(setup.collator(virtual_tokens=setup.method.virtual_ids), shares_prefix=shares)
    prompts = [rows.prompt(i) for i in range(len(rows))]
    shared = collator.shared(prompts)
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    said: dict[int, str] = {}
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        prefix = Prefix.of(module.model, collator.prefix(prompts[0], length=shared)) if shared else None
        for start in range(0, len(order), batch):
            members = order[start : start + batch]
            texts = answer(
                module.model, collator.prompts([prompts[i] for i in members], after=shared), facts=setup.facts,
                tokenizer=setup.tokenizer, max_new_tokens=task.max_new_tokens, prefix=prefix,
            )  # fmt: skip
            said |= dict(zip(members, texts, strict=True))
    return [said[i] for i in range(len(prompts))]


@pytest.mark.parametrize("method", ["full", "lora", "prompt"])
def test_answers_in_batches_equal_those_one_by_one_in_fp32_and_nearly_all_in_bf16(method: str, tmp_path: Path) -> None:
    run = finish([f"method={method}", "max_steps=60", "data=sentiment", "logger=none", "trainer=cpu"], tmp_path)
    assert run.code == 0, run.stderr
    register_resolvers()
    config = OmegaConf.load(run.folder / "config.yaml")
    config.pop("defaults")
    setup = set_up(config)
    learned = run.folder / setup.method.folder

    for precision, least in (("fp32", PROMPTS), ("bf16", 0.99 * PROMPTS)):
        one_by_one = answers(setup, learned, batch=1, precision=precision, shares=False)
        for shares in (False, True)[: 1 + (precision == "fp32")]:  # a run shares beginnings in fp32 alone
            together = answers(setup, learned, batch=BATCH, precision=precision, shares=shares)
            assert sum(a == b for a, b in zip(together, one_by_one, strict=True)) >= least, (precision, shares)
        assert len(set(one_by_one)) > 1
