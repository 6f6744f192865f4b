"""The refusal detector and the rule edit."""
