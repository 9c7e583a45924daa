"""`export`: merges what a run learned into its base, as a folder that plain transformers loads.

forgetmenot export run=outputs/runs/DATE/RUN to=my_model
"""

from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console

from forgetmenot.config.build import build, import_plugins
from forgetmenot.config.errors import ConfigError
from forgetmenot.config.settings import Export
from forgetmenot.config.source import read_source
from forgetmenot.export import check_free, check_mergeable, merged, write_model
from forgetmenot.loggers import quiet_libraries
from forgetmenot.method.base import Method
from forgetmenot.model.facts import read_facts
from forgetmenot.model.load import Model, load_tokenizer, read_config
from forgetmenot.record import folder_bytes
from forgetmenot.result import RunResult


def run(config: DictConfig) -> None:
    """Writes the folder and says how to load it; data is not needed."""
    quiet_libraries()
    console = Console()
    asked = build(config, Export, key="")
    to = Path(asked.to).expanduser()
    check_free(to)
    source = read_source(asked.run, {})
    if source.folder is None:
        raise ConfigError(f"run must be a finished run, got {asked.run}, a model that is plain already")
    _check_complete(source.folder)

    model = build(source.config.model, Model, key="model")
    method = build(source.config.method, Method, key="method", plugins=import_plugins(tuple(source.config.plugins)))
    check_mergeable(method)
    facts = read_facts(model, read_config(model))
    tokenizer = load_tokenizer(model, embedding_rows=facts.embedding_rows)

    console.print(f"merging what {method.name} learned into {model.name}", soft_wrap=True, markup=False)
    learned = source.folder / method.folder
    whole = merged(model, method=method, learned=learned, seed=int(source.config.seed))
    console.print(f"writing {facts.parameters / 1e6:,.1f} M parameters in fp32", markup=False)
    write_model(to, whole, tokenizer=tokenizer)

    auto = "AutoModelForSeq2SeqLM" if facts.is_encoder_decoder else "AutoModelForCausalLM"
    console.print(
        f"The model lies in {to}, {folder_bytes(to) / 1e6:,.1f} MB; plain transformers loads it:\n"
        f'  {auto}.from_pretrained("{to}"), AutoTokenizer.from_pretrained("{to}")',
        soft_wrap=True, markup=False, highlight=False,
    )  # fmt: skip


def _check_complete(folder: Path) -> None:
    """Raises ConfigError where a run did not end well: what lies in its folder may be half of it."""
    status = RunResult.read(folder).status
    if status != "complete":
        was = "failed" if status == "failed" else "was interrupted"
        raise ConfigError(f"run must be a run that ended well, got {folder}, which {was}")
