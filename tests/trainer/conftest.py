"""Disables the deadline of property tests: on a busy machine an example may take long."""

from hypothesis import settings

settings.register_profile("trainer", deadline=None)
settings.load_profile("trainer")
