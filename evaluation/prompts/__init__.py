"""Prompt sets: files, built-in sets and data sets of the hub."""

from evaluation.prompts.loader import load_prompts, prompt_file
from evaluation.prompts.schema import KINDS, Prompt, PromptError

__all__ = ["KINDS", "Prompt", "PromptError", "load_prompts", "prompt_file"]
