"""Keeps the tokenizer and the weights of the multilingual encoder in memory once this module is imported.

Reading them takes a second. Encoders that are opened later, in this process or in a fork, share them.
"""

from functools import cache

from rule_server.retrieval.encoders.multilingual import encoder

encoder.PieceTokenizer = cache(encoder.PieceTokenizer)  # type: ignore[misc, assignment]
encoder.load_weights = cache(encoder.load_weights)  # type: ignore[assignment]
_FOLDER = encoder._package_folder()
encoder.PieceTokenizer((_FOLDER / "sp.model").read_bytes())
encoder.load_weights(_FOLDER)
