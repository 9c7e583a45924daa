"""Prepares the pretraining of the tiny model: its tokenizer, its configuration and its mixture of texts and tasks.

python pretraining/prepare.py ../shared/data
"""

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random

from mixture import SPLITS, mix, read_forbidden, write_jsonl
from names import FirstNames, learn_words
from sources import Record, read_first_names, read_held_out_names, read_texts
from tokenizer import train_tokenizer
from transformers import Qwen2Config, Qwen2Tokenizer

ROOT = Path(__file__).resolve().parents[1]
MAX_LENGTH = 512
TOKENIZER_SAMPLE = 12_000_000  # characters: more changes hardly a piece and takes longer than a minute


def main() -> int:
    """Run the preparation; an error is one sentence on stderr."""
    try:
        prepare(read_arguments())
    except ValueError as error:
        print(f"prepare.py: {error}", file=sys.stderr)
        return 1
    return 0


def read_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("shared", type=Path, help="the folder with the public sets, such as ../shared/data")
    parser.add_argument("--assets", type=Path, default=ROOT / "src/forgetmenot/assets/data", help="the project's sets")
    parser.add_argument("--out", type=Path, default=ROOT / "outputs/pretrain_tiny", help="where the files go")
    parser.add_argument("--table", action=argparse.BooleanOptionalAction, default=True, help="tokens of each source")
    parser.add_argument("--seed", type=int, default=0, help="of every random choice")
    return parser.parse_args()


def prepare(arguments: argparse.Namespace) -> None:
    """Write the mixture, the tokenizer and the model's configuration, and print what each source adds."""
    shared, assets = arguments.shared, arguments.assets
    texts = {split: read_texts(shared, assets=assets, split=split) for split in SPLITS}
    held_out = read_held_out_names(shared, assets=assets)
    listed = {
        gender: tuple(n for n in found if n not in held_out) for gender, found in read_first_names(shared).items()
    }
    names = FirstNames(**listed, held_out=held_out)
    lexicon = learn_words([*texts["train"].chapters, *(text for text, _ in texts["train"].problems)], names=names)
    forbidden = read_forbidden(shared, assets=assets)

    mixture = {
        split: mix(texts[split], split=split, lexicon=lexicon, forbidden=forbidden, seed=arguments.seed)
        for split in SPLITS
    }
    for split, records in mixture.items():
        write_jsonl(records, arguments.out / "data" / f"{split}.jsonl")

    tokenizer = train_tokenizer(sample_texts(mixture["train"], seed=arguments.seed), max_length=MAX_LENGTH)
    write_model(tokenizer, arguments.out / "model")

    count = token_counter(tokenizer)
    if arguments.table:
        print_table(mixture["train"], count=count)
    unseen = texts["validation"].pages
    ratio = sum(len(text.encode()) for text in unseen) / sum(count(text) for text in unseen)
    print(f"\n{ratio:.2f} bytes per token on held-out books; files in {arguments.out}")


def sample_texts(records: Sequence[Record], *, seed: int) -> Iterator[str]:
    """Yield prompts and completions of random records, as many characters as the tokenizer needs."""
    characters = 0
    for record in Random(seed).sample(records, len(records)):
        for text in filter(None, (record.prompt, record.completion)):
            yield text
            characters += len(text)
        if characters > TOKENIZER_SAMPLE:
            return


def write_model(tokenizer: Qwen2Tokenizer, folder: Path) -> None:
    """Write the tokenizer and the configuration of the model, without weights."""
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=256,
        num_hidden_layers=5,
        num_attention_heads=4,  # of 64 each: a CPU attends a quarter faster than with 8 of 32
        num_key_value_heads=2,
        intermediate_size=688,
        max_position_embeddings=MAX_LENGTH,
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        architectures=["Qwen2ForCausalLM"],
    )
    tokenizer.save_pretrained(folder)
    config.save_pretrained(folder)


def token_counter(tokenizer: Qwen2Tokenizer) -> Callable[[str], int]:
    """Return what counts the tokens of a text, without the Python layers of transformers: ten times as fast."""
    return lambda text: len(tokenizer.backend_tokenizer.encode(text, add_special_tokens=False))


def print_table(records: Sequence[Record], *, count: Callable[[str], int]) -> None:
    """Print how many records, tokens and supervised tokens each source has."""
    rows: Counter[str] = Counter()
    tokens: Counter[str] = Counter()
    supervised: Counter[str] = Counter()
    for record in records:
        prompt = count(record.prompt + "\n") if record.prompt else 0
        completion = count(record.completion) + 1  # the end of the text is learned, too
        rows[record.source] += 1
        tokens[record.source] += 1 + prompt + completion
        supervised[record.source] += completion
    print(f"{'source':28}{'records':>10}{'tokens':>12}{'supervised':>12}")
    for source in sorted(rows, key=lambda source: -tokens[source]):
        print(f"{source:28}{rows[source]:10,}{tokens[source]:12,}{supervised[source]:12,}")
    print(f"{'total':28}{rows.total():10,}{tokens.total():12,}{supervised.total():12,}")


if __name__ == "__main__":
    sys.exit(main())
