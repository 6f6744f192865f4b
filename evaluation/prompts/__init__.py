"""Prompt sets and suites of conversations: files, built-in sets and data sets of the Hugging Face hub."""

from evaluation.errors import PromptError
from evaluation.prompts.conversations import Conversation, load_conversations
from evaluation.prompts.loader import load_prompts, prompt_file
from evaluation.prompts.schema import KINDS, Prompt

__all__ = [
    "KINDS",
    "Conversation",
    "Prompt",
    "PromptError",
    "load_conversations",
    "load_prompts",
    "prompt_file",
]
