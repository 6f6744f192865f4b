"""Keeps what multilingual encoders read in memory once this module is imported.

Reading it takes seconds. Encoders that are opened later, in this process or in a fork, share it.
"""

from functools import cache

from rule_server.retrieval.encoders.e5 import encoder as e5
from rule_server.retrieval.encoders.multilingual import encoder

encoder.PieceTokenizer = cache(encoder.PieceTokenizer)  # type: ignore[misc, assignment]
encoder.load_weights = cache(encoder.load_weights)  # type: ignore[assignment]
_FOLDER = encoder._package_folder()
encoder.PieceTokenizer((_FOLDER / "sp.model").read_bytes())
encoder.load_weights(_FOLDER)
e5.open_file = cache(e5.open_file)  # type: ignore[assignment]
e5.read_model = cache(e5.read_model)  # type: ignore[assignment]
