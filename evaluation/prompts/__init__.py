"""Prompt sets: files, built-in sets and data sets of the Hugging Face hub."""

from evaluation.errors import PromptError
from evaluation.prompts.loader import load_prompts, prompt_file
from evaluation.prompts.schema import KINDS, Prompt

__all__ = ["KINDS", "Prompt", "PromptError", "load_prompts", "prompt_file"]
