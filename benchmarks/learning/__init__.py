"""What IFPO learns: closed forms, a bandit, the decision alone, whole episodes."""
