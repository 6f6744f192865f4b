"""Signal and noise of the decision's gradient in whole episodes: GRPO, IFPO and exact strata."""
