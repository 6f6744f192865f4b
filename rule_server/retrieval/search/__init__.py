"""Finds the texts that are near a question, and scores each rule from them."""
