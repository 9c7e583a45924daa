"""A mistake on the command line is one sentence on stderr and an exit code, before any weight is read."""

from pathlib import Path

import pytest
from tiny_runs import Finished, Train, finish, read_result


@pytest.fixture(autouse=True)
def _no_weight_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("weights were read before the settings were checked")

    monkeypatch.setattr("forgetmenot.cli.wiring.load", refuse)
    monkeypatch.setattr("forgetmenot.cli.penalties.load", refuse)


def _refused(done: Finished, *parts: str) -> None:
    assert done.code == 1
    assert done.sentence.startswith("error: ")
    assert "Traceback" not in done.stderr + done.stdout
    for part in parts:
        assert part in done.sentence


CHOICES = [
    ("data=sentimnet", ("data must be one of", "sentimnet", "did you mean data=sentiment?")),
    ("method=loar", ("method must be one of", "loar", "did you mean method=lora?")),
    ("model=tinny", ("model must be one of", "did you mean model=tiny?")),
    ("optimizer=adam", ("optimizer must be one of", "did you mean optimizer=adamw?")),
    ("schedule=cosin", ("schedule must be one of", "did you mean schedule=cosine?")),
    ("regularizer=[l2_sq]", ("regularizer must be one of", "did you mean regularizer=l2_sp?")),
    ("experiment=pretrain_tny", ("experiment must be one of", "did you mean experiment=pretrain_tiny?")),
    ("methd=lora", ("methd",)),
    ("method.rnak=3", ("method.rnak must be a key of method", "got rnak", "did you mean method.rank?")),
    ("method.num_layers=3", ("method.num_layers must be a key of method", "; method=last_layers has it")),
    ("epoch=3", ("epoch must be a key of the run", "did you mean epochs?")),
    ("data.prompt={text} is it good?", ("quote",)),
    ("data.prompt='{text} ?", ("quote",)),
]


@pytest.mark.parametrize(("argument", "parts"), CHOICES, ids=[argument for argument, _ in CHOICES])
def test_what_hydra_refuses_is_one_sentence(tmp_path: Path, argument: str, parts: tuple[str, ...]) -> None:
    _refused(finish([argument], tmp_path), *parts)


COMMANDS = [
    ("method.rank=abc", ("method.rank must be a whole number, got abc",)),
    ("method.rank=0", ("method.rank must be at least 1, got 0",)),
    ("+trainer.max_epoch=3", ("trainer.max_epoch", "did you mean")),
    ("trainer.max_epochs=3", ("trainer.max_epochs must be set by epochs",)),
    ("+trainer.precision=16", ("trainer.precision must be set by precision",)),
    ("+nonsense=1", ("nonsense must be a key of the run", "got nonsense")),
    ("regularizer=null", ("regularizer must be", "regularizer=[]")),
    ("regularizer=null,l2_sp", ("regularizer must be", "regularizer=[]")),
    ("method=null", ("method must be one of", "got null")),
    ("data.path=/nowhere", ("data.path must be an existing file or folder", "/nowhere")),
    ("data.path=???", ("data.path must be given, got nothing; add data.path=VALUE",)),
    ("data.retained=[nmaes]", ("data.retained must name data sets", "nmaes", "did you mean names?")),
    ("data.retained=[names,names]", ("data.retained must be data sets of different names", "got names twice")),
    ("lr=1e-3", ("lr must be a key of the run", "did you mean method.lr or optimizer.lr?")),
    ("regularizer.l2_sp.weight=1", ("regularizer must be chosen before it is set, as regularizer=[ewc|kl|l2_sp]",)),
    ("logger.project=mine", ("logger.project must be a setting of the chosen logger",)),
    ("trainer.max_epoch=3", ("trainer.max_epoch must be set by epochs",)),
    ("trainer.log_every_n_steps=abc", ("trainer.log_every_n_steps must be of the type",)),
    ("trainer.num_nodes=0", ("trainer.num_nodes must be at least 1, got 0",)),
    ("+trainer.check_val_every_n_epoch=0", ("trainer.check_val_every_n_epoch must be at least 1",)),
    ("trainer.strategy=deepspeed", ("trainer.strategy must be auto, single_device, ddp or fsdp", "got deepspeed")),
    ("trainer.strategy=fsdp optimizer=muon", ("optimizer must be one that steps each weight by itself", "trainer=ddp")),
    ("trainer.strategy=fsdp regularizer=l2_sp", ("regularizer must be [] or kl", "got l2_sp", "trainer=ddp takes it")),
    ("trainer.strategy=ddp_spawn", ("trainer.strategy must start ranks as commands",)),
    ("optimizer.betas=[0.9]", ("optimizer must be settings that its class takes", "betas")),
    ("plugins=[no_such_module]", ("plugins must be modules that can be imported, got no_such_module",)),
    ("objective=val.accuracy data.metric=loss", ("objective must be gain, forgetting.mean, val.loss or after.loss",)),
    ("method.rank=100000", ("method.rank must be at most", "widest layer")),
    ("method=last_layers method.num_layers=9", ("method.num_layers must be at most 1, the model's blocks, got 9",)),
    ("method=qlora", ("method.quantize must be null for a model whose layers take no multiple of 64", "got nf4")),
    ("seed=99999999999", ("seed must be at least 0 and below 2**32",)),
    ("experiment=null method.rank=0", ("method.rank must be at least 1",)),
    ("sweep=null method.rank=0", ("method.rank must be at least 1",)),
    ("sweep=rnak", ("sweep must be one of", "did you mean sweep=rank?")),
    ("method._target_=os.system", ("method._target_ must be a class of forgetmenot",)),
    ("replay=mixed", ("data.retained must be data sets with a train split where replay=mixed, got none",)),
    ("replay=mixed replay.share=1", ("replay.share must be above 0 and below 1, got 1.0; replay=none",)),
    (
        "replay=mixed batch_size=1 data.retained=[names]",
        ("replay.share must leave one example of a step", "batch_size=1"),
    ),
]


@pytest.mark.parametrize(("argument", "parts"), COMMANDS, ids=[argument for argument, _ in COMMANDS])
def test_a_wrong_setting_on_the_command_line_is_one_sentence(
    train: Train, argument: str, parts: tuple[str, ...]
) -> None:
    _refused(train(*argument.split()), *parts)


@pytest.mark.parametrize("argument", ["data=sentimnet", "method.rnak=3"])
def test_a_sweep_answers_a_mistake_in_one_sentence_too(
    tmp_path: Path, tiny_arguments: list[str], argument: str
) -> None:
    arguments = [a for a in tiny_arguments if a != "data=local" or not argument.startswith("data=")]
    _refused(finish(["-m", *arguments, argument], tmp_path))


@pytest.mark.slow
def test_a_member_of_a_sweep_answers_a_mistake_that_hydra_does_not_see_in_one_sentence(
    tmp_path: Path, tiny_arguments: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    done = finish(["-m", *tiny_arguments, "+nonsense=1"], tmp_path)
    said_by_the_member = capfd.readouterr().err.strip().splitlines()
    assert done.code == 1 and len(said_by_the_member) == 1
    assert said_by_the_member[0].startswith("error: nonsense must be a key of the run")


def test_a_run_that_was_refused_says_failed_with_the_same_sentence(train: Train) -> None:
    done = train("method.rank=0")
    result = read_result(done.folder)
    assert result["status"] == "failed"
    assert done.sentence == f"error: {result['error']}"
    for key in ("tasks", "gain", "forgetting", "cost", "method", "data"):
        assert result[key] is None


def test_two_runs_of_the_same_second_have_different_folders(train: Train) -> None:
    train("method.rank=0")
    first, second = train("method.rank=0").folders
    assert first.name.rsplit("_", 1)[1] != second.name.rsplit("_", 1)[1], "the ids differ, not the second alone"


def test_a_name_that_climbs_leaves_nothing_outside_the_run_folder(train: Train, tmp_path: Path) -> None:
    train("data.name=../../../evil")
    assert [place.name for place in tmp_path.iterdir()] == ["outputs"]
    assert not list(tmp_path.parent.glob("evil*"))


def test_a_csv_without_the_named_column_tells_the_columns_that_are_there(train: Train, tmp_path: Path) -> None:
    file = tmp_path / "own.csv"
    file.write_text("title,label\na,b\nc,d\ne,f\ng,h\n")
    _refused(train(f"data.path={file}"), "own.csv line", "'text'", "columns: label, title")


@pytest.mark.parametrize("content", [b"", bytes(range(256)), b"\x1f\x8b\x08\x00zipped"], ids=["empty", "bytes", "gzip"])
@pytest.mark.parametrize("name", ["own.jsonl", "own.csv"])
def test_an_empty_or_binary_file_is_refused_by_its_name(
    train: Train, tmp_path: Path, content: bytes, name: str
) -> None:
    (tmp_path / name).write_bytes(content)
    _refused(train(f"data.path={tmp_path / name}"), name, "must")


def test_a_model_folder_without_weights_is_refused_with_a_way_out(
    train: Train, tmp_path: Path, tiny_model: Path
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_bytes((tiny_model / "config.json").read_bytes())
    _refused(train(f"model.path={folder}"), "model.path must be a folder with safetensors weights", "weights=random")


@pytest.mark.parametrize("options", [("--config-name", "nowhere"), ("--config-dir", "/nowhere")])
def test_a_config_that_is_not_there_is_one_sentence(train: Train, options: tuple[str, ...]) -> None:
    _refused(train(options=options), "nowhere")


def test_the_flag_of_a_sweep_may_stand_behind_the_settings(tmp_path: Path) -> None:
    done = finish(["data=sentimnet", "-m", "method.rank=2,4"], tmp_path)
    _refused(done, "did you mean data=sentiment?")
