"""Training of the learned parts of retrieval: whether a packaged rule applies, and which comes first."""
