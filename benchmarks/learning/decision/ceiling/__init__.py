"""How well labels can teach the decision: adapters of growing size, all weights, and linear references."""
