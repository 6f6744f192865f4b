"""Prepares the local model SmolLM2."""

from trainer.models.smollm2 import default_directory, prepare_adapted_model, prepare_local_model

__all__ = ["default_directory", "prepare_adapted_model", "prepare_local_model"]
