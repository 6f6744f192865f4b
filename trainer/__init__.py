"""SFT cold start and IFPO, on TRL."""
