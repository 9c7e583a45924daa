"""What a run would take, in a terminal: a table of memory by part, and sentences with units."""

from rich.table import Table

from forgetmenot.footprint import Parts

_PARTS = {
    "weights": "of the model and what is learned",
    "gradients": "of what is learned",
    "optimizer": "what it keeps of each weight",
    "activations": "kept for the backward pass, and what computes at the fullest moment",
    "logits": "of the head, and their gradients",
    "exchange": "what devices hold for each other",
    "penalties": "what they hold beside the model",
    "allocator": "what libraries keep, and the heap cannot use",
}
_ALWAYS = ("weights", "gradients", "optimizer", "activations", "logits")  # others only where there is something


def plan_table(parts: Parts, *, devices: int) -> Table:
    """Returns the memory of one of so many devices at its fullest moment, part by part."""
    table = Table(title=f"memory of each of {devices} devices" if devices > 1 else "memory of the device")
    table.add_column("part")
    table.add_column("GB", justify="right")
    table.add_column("what", overflow="fold")
    for name, what in _PARTS.items():
        size = getattr(parts, name)
        if size or name in _ALWAYS:
            table.add_row(name, gigabytes(size), what)
    table.add_section()
    table.add_row("all", gigabytes(parts.total), "at the fullest moment of a step")
    return table


def gigabytes(size: float) -> str:
    """Returns bytes in GB, of small ones with more digits."""
    return f"{size / 1e9:,.1f}" if size >= 10e9 else f"{size / 1e9:.2f}" if size >= 0.1e9 else f"{size / 1e9:.3f}"


def work(flops: float) -> str:
    """Returns floating point operations in TFLOP, of a small step in GFLOP."""
    return f"{flops / 1e12:,.1f} TFLOP" if flops >= 1e12 else f"{flops / 1e9:,.1f} GFLOP"


def duration(seconds: float) -> str:
    """Returns seconds in the unit that people would say them in."""
    for size, unit in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:,.1f} s"
