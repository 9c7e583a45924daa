"""Penalties that hold a model near what it was."""
