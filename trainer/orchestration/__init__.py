"""Runs rounds of training (`loop`) and training on many processes (`launch`)."""
