"""One script a claim; RESULTS.md holds what they printed."""
