"""The parts of a run, checked: whatever the settings, the data and the model's config can tell is told at once."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from transformers import RwkvConfig

from forgetmenot.cli.setup import Setup, set_up
from forgetmenot.cli.trainable import check_trainable
from forgetmenot.config.paths import conf_folder, register_resolvers

SetUp = Callable[..., Setup]


@pytest.fixture(scope="module")
def composed(tiny_arguments: list[str]) -> DictConfig:
    """The settings of a tiny run, composed once."""
    register_resolvers()
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        config = compose("train", overrides=tiny_arguments)
    OmegaConf.set_struct(config, False)
    return config


@pytest.fixture
def set_up_with(composed: DictConfig) -> SetUp:
    """Sets up the tiny run with one setting changed (key=value) or left out (~key)."""

    def change(*arguments: str) -> Setup:
        config = composed.copy()
        for argument in arguments:
            if argument.startswith("~"):
                group, _, key = argument[1:].partition(".")
                del config[group][key]
            else:
                key, _, value = argument.partition("=")
                OmegaConf.update(config, key, yaml.safe_load(value), merge=False)
        return set_up(config)

    return change


SETTINGS = [
    ("method.rank=2.5", "method.rank must be a whole number, got 2.5"),
    ("method.rank=null", "method.rank must be a whole number, got null"),
    ("method.rank=true", "method.rank must be a whole number, got True"),
    ("method.rank='3'", "method.rank must be a whole number, got 3"),
    ("method.dropout=1", "method.dropout must be at least 0 and below 1, got 1.0"),
    ("method.rnak=3", "method.rnak must be a key of method"),
    ("method.rnak=3", "did you mean method.rank?"),
    ("~method.rank", "method.rank must be given, got nothing; add method.rank=VALUE"),
    ("method.target_modules=[3]", "method.target_modules[0] must be text, got 3"),
    ("method.target_modules=[]", "method.target_modules must be [all-linear] or names of layers"),
    ("method.target_modules=all-linear", "method.target_modules must be a list, got all-linear"),
    ("trainer.max_epochs=3", "trainer.max_epochs must be set by epochs"),
    ("trainer.max_steps=3", "trainer.max_steps must be set by max_steps"),
    ("trainer.accumulate_grad_batches=2", "must be set by micro_batch_tokens"),
    ("trainer.gradient_clip_val=1", "must be set by optimizer.clip_norm"),
    ("trainer.logger=false", "trainer.logger must be set by logger"),
    ("trainer.plugins=[]", "trainer.plugins must be set by this project alone"),
    ("trainer.enable_progress_bar=true", "trainer.enable_progress_bar must be set by this project alone"),
    ("model=null", "model must be one of conf/model, got null"),
    ("optimizer=null", "optimizer must be one of conf/optimizer, got null"),
    ("data.metric=acuracy", "data.metric must be one of"),
    ("data.name=../../evil", "data.name must be"),
    ("data.path='???'", "data.path must be given, got nothing; add data.path=VALUE"),
    ("model.path='???'", "model.path must be given, got nothing; add model.path=VALUE"),
    ("data.references=nowhere", "data.references must name a column"),
    ("model.path=/nowhere", "model.path must be an existing folder or a hub id, got /nowhere"),
    ("max_length=100000", "max_length must be at most the model's context of 128 tokens, got 100000"),
    ("max_length=9", "max_length must be at least"),
    ("precision=fp16", "precision must be one of auto, fp32, bf16, got fp16"),
    ("epochs=0", "epochs must be at least 1, got 0"),
    ("epochs=null", "epochs must be a whole number where max_steps is null"),
    ("micro_batch_tokens=atuo", "micro_batch_tokens must be a whole number or auto, got atuo"),
    ("select=bset", "select must be one of last, best, got bset"),
    ("plugins=mine", "plugins must be a list, got mine"),
    ("optimizer.beta=1", "did you mean optimizer.betas?"),
    ("schedule.warm=1", "did you mean schedule.warmup?"),
]


@pytest.mark.parametrize(
    ("argument", "part"), SETTINGS, ids=[f"{argument}-{i}" for i, (argument, _) in enumerate(SETTINGS)]
)
def test_a_wrong_setting_names_its_key_its_rule_and_what_it_got(set_up_with: SetUp, argument: str, part: str) -> None:
    with pytest.raises(ValueError) as error:
        set_up_with(argument)
    assert part in str(error.value)


LATE = [
    "schedule.warmup=abc",
    "schedule.warmup=2",
    "~schedule.warmup",
    "optimizer.lr=abc",
    "optimizer.lr=-1",
    "optimizer.betas=3",
    "optimizer.eps=abc",
    "optimizer.weight_decay=abc",
    "optimizer.clip_norm=abc",
    "trainer.accelerator=gpuu",
    "trainer.devices=abc",
    "objective=nonsense",
    "objective=val.nonsense",
    "method.target_modules=[nowhere]",
]


@pytest.mark.parametrize("argument", LATE)
def test_a_value_that_only_a_library_would_refuse_is_refused_beforehand(set_up_with: SetUp, argument: str) -> None:
    with pytest.raises(ValueError) as error:
        set_up_with(argument)
    key = argument.strip("~").split("=")[0]
    assert all(word in str(error.value) for word in key.split("."))


TARGETS = [
    "method._target_=builtins.eval",
    "method._target_=torch.load",
    "method._target_=torch.nn.Linear",
    "method._target_=forgetmenot.config.app.run_app",
    "method._target_=forgetmenot.method.base.Method",
    "method._target_=forgetmenot.method.lora.Loar",
    "method._target_=forgetmenot.method..lora.Lora",
    "method._target_=forgetmenot",
    "method._target_=''",
    "method._target_=3",
    "~method._target_",
    "model._target_=os.system",
    "data._target_=subprocess.Popen",
    "optimizer._target_=torch.load",
    "optimizer._target_=torch.optim.lr_scheduler.StepLR",
    "schedule._target_=torch.optim.AdamW",
    "logger._target_=os.system",
]


@pytest.mark.parametrize("argument", TARGETS)
def test_a_target_that_is_no_class_of_its_group_is_refused(set_up_with: SetUp, argument: str) -> None:
    with pytest.raises(ValueError, match="_target_ must be"):
        set_up_with(argument)


def test_a_module_under_plugins_still_has_to_hold_a_subclass(set_up_with: SetUp) -> None:
    with pytest.raises(ValueError, match=r"must be a subclass of forgetmenot\.method\.base\.Method"):
        set_up_with("plugins=[os]", "method._target_=os.system")


def test_a_setup_knows_the_run_as_result_json_tells_it(set_up_with: SetUp) -> None:
    setup = set_up_with("method.lr=0.5", "model.lr_scale=3")
    assert setup.model_section == {"name": "causal", "architecture": "causal", "parameters": setup.facts.parameters}
    assert setup.lr == 1.5
    assert setup.monitor == "val/accuracy"
    assert (len(setup.target.train), len(setup.target.validation), len(setup.target.test)) == (16, 4, 4)
    assert (setup.retained, setup.regularizers, setup.make_logger) == ((), (), None)


def test_a_logger_stays_in_the_runs_folder(set_up_with: SetUp) -> None:
    with pytest.raises(
        ValueError, match=r"^logger\.version must be a name or a path within the run's folder, got /tmp"
    ):
        set_up_with("logger={_target_: lightning.pytorch.loggers.CSVLogger, version: /tmp/outside}")


def test_the_default_logger_is_set_up_with_every_setting_that_its_yaml_lists(set_up_with: SetUp) -> None:
    values = (conf_folder() / "logger" / "wandb.yaml").read_text()
    setup = set_up_with(f"logger={values.replace('${wandb_offline:}', 'true')}")
    assert setup.make_logger is not None


def test_the_optimizers_own_rate_overrides_the_methods(set_up_with: SetUp) -> None:
    assert set_up_with("optimizer.lr=0.25", "model.lr_scale=3").lr == 0.25


def test_the_steps_of_a_run_end_with_whichever_comes_first(set_up_with: SetUp) -> None:
    assert set_up_with("epochs=3").total_steps(4) == 12
    assert set_up_with("epochs=3", "max_steps=5").total_steps(4) == 5
    assert set_up_with("epochs=null", "max_steps=5").total_steps(4) == 5


def test_virtual_tokens_take_their_share_of_max_length(set_up_with: SetUp) -> None:
    setup = set_up_with(
        "method={_target_: forgetmenot.method.prompt.Prompt, name: prompt, lr: 0.1, num_virtual_tokens: 20, "
        "start: null}"
    )
    assert setup.encoder.max_length == 64 - 20
    assert setup.collator(virtual_tokens=20).first_virtual_id == setup.facts.embedding_rows


def test_chat_without_a_chat_template_is_refused_before_weights_are_read(
    set_up_with: SetUp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forgetmenot.cli.wiring.load", lambda *_, **__: pytest.fail("weights were read"))
    with pytest.raises(
        ValueError, match=r"^model\.chat must be false for a tokenizer without a chat template, got true"
    ):
        set_up_with("model.chat=true")


def test_a_chat_template_is_read_and_takes_its_share_of_max_length(
    set_up_with: SetUp, tmp_path: Path, tiny_model: Path
) -> None:
    for kept in tiny_model.iterdir():
        (tmp_path / kept.name).write_bytes(kept.read_bytes())
    turn = "{{ bos_token }}{{ m.role }}\n{{ m.content }}{{ eos_token }}"
    asks = "{% if add_generation_prompt %}{{ bos_token }}assistant\n{% endif %}"
    (tmp_path / "chat_template.jinja").write_text(f"{{% for m in messages %}}{turn}{{% endfor %}}{asks}")
    chatting = ("model.chat=true", f"model.path={tmp_path}")

    chat = set_up_with(*chatting).encoder.chat

    assert chat is not None
    assert (chat.opening[0], chat.end) == (1, 2)
    frame = len(chat.opening) + len(chat.closing)
    with pytest.raises(ValueError, match=rf"max_length must be at least {frame + 10} .* {frame} of the chat template"):
        set_up_with(*chatting, "max_length=20")


FILES = [
    (
        b"title,label\na,b\nc,d\ne,f\ng,h\n",
        r"own\.csv line \d: data\.prompt names the column 'text'.*columns: label, title",
    ),
    (b"", r"own\.csv must hold at least one record"),
    (b"text,label\n", r"own\.csv must hold at least one record"),
    (bytes(range(256)), r"own\.csv line \d"),
    (b"text,label\na,b\0\n", r"own\.csv line 2.*zero byte"),
    (b"text,label\na\n", r"own\.csv line 2.*2 fields"),
    (b"text,label\na,b\n", "must hold at least 3 records to split, got 1"),
]


@pytest.mark.parametrize(("content", "message"), FILES)
def test_a_csv_that_cannot_be_used_is_named_with_its_line(
    set_up_with: SetUp, tmp_path: Path, content: bytes, message: str
) -> None:
    (tmp_path / "own.csv").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        set_up_with(f"data.path={tmp_path / 'own.csv'}")


@pytest.mark.parametrize(
    ("lacking", "message"),
    [
        ("config.json", r"model\.path must be a folder with config\.json"),
        ("model.safetensors", r"model\.path must be a folder with safetensors weights \(model\.safetensors"),
        ("tokenizer", r"model\.path must hold a tokenizer"),
    ],
)
def test_a_model_folder_that_lacks_a_file_is_refused(
    set_up_with: SetUp, tmp_path: Path, tiny_model: Path, lacking: str, message: str
) -> None:
    for kept in tiny_model.iterdir():
        if not kept.name.startswith(lacking):
            (tmp_path / kept.name).write_bytes(kept.read_bytes())
    with pytest.raises(ValueError, match=message):
        set_up_with(f"model.path={tmp_path}")


def test_a_model_config_that_is_no_json_is_refused(set_up_with: SetUp, tmp_path: Path, tiny_model: Path) -> None:
    for kept in tiny_model.iterdir():
        (tmp_path / kept.name).write_bytes(kept.read_bytes())
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen2"})[:-3])
    with pytest.raises(ValueError, match=r"model\.path must be"):
        set_up_with(f"model.path={tmp_path}")


@pytest.mark.filterwarnings("default:.* is replayed")
def test_a_share_that_is_no_whole_number_of_examples_is_told_as_what_it_is(set_up_with: SetUp) -> None:
    setup = set_up_with("replay=mixed", "replay.share=0.3", "batch_size=8")
    with pytest.warns(UserWarning, match=r"^replay\.share=0\.3 of batch_size=8 .*: 0\.25 of every step is replayed$"):
        check_trainable(replace(setup, retained=(setup.target,)))


def test_a_model_that_reads_padding_as_text_is_refused_before_weights_are_read(
    set_up_with: SetUp, tmp_path: Path
) -> None:
    RwkvConfig(vocab_size=48, hidden_size=16, num_hidden_layers=1, context_length=64).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"^model\.path must be a model that tells padding from text, got .*rwkv"):
        set_up_with(f"model.path={tmp_path}")
