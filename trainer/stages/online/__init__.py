"""The stage `online`: on-policy training with consultations."""
