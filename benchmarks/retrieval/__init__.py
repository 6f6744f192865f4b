"""How well, and how fast, the right rules are found."""
