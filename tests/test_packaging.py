"""What people download stays small: the embedded model, and the wheel with all that it packs."""

from pathlib import Path

TOP = Path(__file__).resolve().parents[1]
PACKED = (TOP / "src" / "forgetmenot", TOP / "conf")
MB = 1_000_000


def size(*folders: Path) -> int:
    """Returns the bytes of all files below some folders, Python's caches left out."""
    files = (file for folder in folders for file in folder.rglob("*") if "__pycache__" not in file.parts)
    return sum(file.stat().st_size for file in files if file.is_file())


def test_the_embedded_model_is_at_most_12_mb() -> None:
    assert 0 < size(TOP / "src" / "forgetmenot" / "assets" / "tiny") <= 12 * MB


def test_what_the_wheel_packs_is_at_most_20_mb() -> None:
    assert 0 < size(*PACKED) <= 20 * MB
