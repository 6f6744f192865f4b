"""One caller request: its hidden consultations and the reply the caller sees."""
