"""Adapts pretrained language models and shows what each method gains, what it costs and what the model forgets."""

from forgetmenot.config.compose import compose

__all__ = ["compose"]
__version__ = "0.1.0"
