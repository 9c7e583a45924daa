"""Regularizers on the command line: what they need is given, kept and said, and what cannot be held is refused."""

import shutil
from pathlib import Path

import pytest
import torch
from tiny_runs import Finished, Train, finish, read_lines, read_result
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, RwkvConfig

KEPT = ("regularizer=ewc", "regularizer.ewc.source=retained", "regularizer.ewc.num_examples=4", "data.retained=[kept]")


@pytest.fixture
def keeping(tmp_path: Path, tiny_arguments: list[str], user_conf: Path, monkeypatch: pytest.MonkeyPatch) -> Train:
    """Runs `train` with a retained task and a cache of its own."""
    monkeypatch.setenv("FORGETMENOT_CACHE", str(tmp_path / "cache"))

    def run(*arguments: str) -> Finished:
        place = tmp_path / str(len(list(tmp_path.iterdir())))
        place.mkdir()
        return finish(["--config-dir", str(user_conf), *tiny_arguments, *arguments], place)

    return run


def logged(done: Finished, name: str) -> list[float]:
    assert done.code == 0, done.stderr
    return [float(line[name]) for line in read_lines(done.folder / "metrics.jsonl") if name in line]


def test_a_fisher_is_estimated_once_and_taken_from_the_disk_by_another_method(keeping: Train) -> None:
    first = keeping(*KEPT, "method=full")
    second = keeping(*KEPT, "method=lora", "method.rank=2")

    assert "estimating the Fisher over 4 retained examples" in first.stdout
    assert "estimating the Fisher" not in second.stdout
    assert "The Fisher was known from an earlier run." in second.stdout
    assert "fisher" not in read_result(first.folder)["reused"]
    assert "fisher" in read_result(second.folder)["reused"]
    for done in (first, second):
        assert logged(done, "train/penalty/ewc")[0] == pytest.approx(0.0, abs=1e-9)
        assert logged(done, "train/penalty/ewc")[-1] > 0


@pytest.mark.slow
def test_several_regularizers_hold_a_model_at_once(keeping: Train) -> None:
    sampled = ("regularizer.ewc.source=samples", "regularizer.ewc.num_examples=3", "regularizer.ewc.max_tokens=6")
    done = keeping("regularizer=[l2_sp,ewc,kl]", *sampled, "method=full")

    for name in ("l2_sp", "ewc", "kl"):
        assert logged(done, f"train/penalty/{name}")[-1] > 0


@pytest.mark.slow
def test_kl_holds_a_soft_prompt_to_the_base_that_reads_no_virtual_tokens(keeping: Train) -> None:
    done = keeping("regularizer=kl", "method=prompt", "method.num_virtual_tokens=3")

    assert all(value > 0 for value in logged(done, "train/penalty/kl"))


def test_ewc_refuses_a_soft_prompt_and_says_what_to_use_instead(train: Train) -> None:
    done = train("regularizer=ewc", "method=prompt", "method.num_virtual_tokens=3")

    assert done.code == 1
    assert "regularizer.ewc must hold weights of the base itself" in done.sentence
    assert "regularizer=kl" in done.sentence


def test_a_fisher_over_retained_examples_needs_some(train: Train) -> None:
    done = train("regularizer=ewc", "regularizer.ewc.source=retained")

    assert done.code == 1
    assert "data.retained must hold training examples for regularizer.ewc.source=retained, got none" in done.sentence
    assert "regularizer.ewc.source=samples" in done.sentence


def other_model(folder: Path, like: Path, **sizes: int) -> Path:
    """Writes another model of the same vocabulary."""
    config = AutoConfig.from_pretrained(like, **sizes)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    for file in like.glob("tokenizer*"):
        shutil.copy(file, folder)
    return folder


@pytest.fixture
def teacher(tmp_path: Path, tiny_model: Path) -> Path:
    """Another model, twice as wide."""
    return other_model(tmp_path / "teacher", tiny_model, hidden_size=32)


def test_kl_holds_an_adapter_over_four_bits_to_the_base_in_four_bits(
    train: Train, tmp_path: Path, tiny_model: Path
) -> None:
    pytest.importorskip("bitsandbytes", reason="needs the extra `quantize`")
    base = other_model(tmp_path / "base", tiny_model, hidden_size=64, intermediate_size=128)
    done = train("regularizer=kl", "method=qlora", f"model.path={base}")

    first, *others = logged(done, "train/penalty/kl")
    assert first == pytest.approx(0.0, abs=1e-7) and others[-1] > 1e-7


@pytest.mark.slow
def test_kl_to_another_model_of_the_same_vocabulary_is_distillation(train: Train, teacher: Path) -> None:
    done = train("regularizer=kl", f"regularizer.kl.reference={teacher}", "method=full", "regularizer.kl.weight=10")

    told = logged(done, "train/penalty/kl")
    assert told[0] > 1e-3  # it is not the base
    assert told[-1] < told[0]


def test_a_teacher_of_another_vocabulary_is_refused_before_weights_are_read(train: Train, teacher: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(teacher)
    tokenizer.add_tokens(["another"])
    tokenizer.save_pretrained(teacher)
    (teacher / "model.safetensors").write_bytes(b"never read")

    done = train("regularizer=kl", f"regularizer.kl.reference={teacher}")

    assert done.code == 1
    assert "regularizer.kl.reference must share the vocabulary of" in done.sentence


def test_a_teacher_that_is_not_there_is_refused_by_the_keys_name(train: Train) -> None:
    done = train("regularizer=kl", "regularizer.kl.reference=/nowhere")

    assert done.code == 1
    assert "regularizer.kl.reference must be an existing folder or a hub id, got /nowhere" in done.sentence


def test_a_teacher_that_reads_padding_as_text_is_refused_by_the_keys_name(train: Train, teacher: Path) -> None:
    shape = AutoConfig.from_pretrained(teacher)
    RwkvConfig(vocab_size=shape.vocab_size, hidden_size=16, num_hidden_layers=1).save_pretrained(teacher)

    done = train("regularizer=kl", f"regularizer.kl.reference={teacher}")

    assert done.code == 1
    assert "regularizer.kl.reference must be a model that tells padding from text" in done.sentence
