"""Ways of adapting a model: one idea, one file."""
