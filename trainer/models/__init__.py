"""The local model: SmolLM2 as a folder."""
