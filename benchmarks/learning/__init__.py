"""Learning experiments with IFPO: closed forms, a bandit, the decision to consult, whole episodes."""
