"""`export`: merges what a run learned into its base, as a folder that plain transformers loads.

forgetmenot export run=outputs/runs/DATE/RUN to=my_model
"""

from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console

from forgetmenot.cli.base import read_mergeable, tokenizer_of, whole_model
from forgetmenot.config.build import build
from forgetmenot.config.settings import Export
from forgetmenot.config.source import asking_of
from forgetmenot.export import check_free, frame_prompts, write_model
from forgetmenot.loggers import quiet_libraries
from forgetmenot.model.facts import read_facts
from forgetmenot.model.load import read_config
from forgetmenot.record import folder_bytes


def run(config: DictConfig) -> None:
    """Writes the folder and says how to load it; data is not needed."""
    quiet_libraries()
    console = Console()
    asked = build(DictConfig({key: config[key] for key in config if key != "model"}), Export, key="")
    to = Path(asked.to).expanduser()
    check_free(to)
    source = read_mergeable(asked.run, key="run", asking=asking_of(config))
    facts = read_facts(source.base, read_config(source.base))
    tokenizer = tokenizer_of(source.base)

    console.print(f"merging what {source.method.name} learned into {source.base.name}", soft_wrap=True, markup=False)
    whole = whole_model(source, tokenizer=tokenizer)
    console.print(f"writing {facts.parameters / 1e6:,.1f} M parameters in fp32", markup=False)
    if not source.base.chat:  # else the chat template lays prompts out
        frame_prompts(tokenizer, is_encoder_decoder=facts.is_encoder_decoder)
    write_model(to, whole, tokenizer=tokenizer)

    auto = "AutoModelForSeq2SeqLM" if facts.is_encoder_decoder else "AutoModelForCausalLM"
    console.print(
        f"The model lies in {to}, {folder_bytes(to) / 1e6:,.1f} MB; plain transformers loads it:\n"
        f'  {auto}.from_pretrained("{to}"), AutoTokenizer.from_pretrained("{to}")',
        soft_wrap=True, markup=False, highlight=False,
    )  # fmt: skip
