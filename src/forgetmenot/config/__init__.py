"""The only room that knows Hydra and OmegaConf."""
