"""Groups of fresh episodes that compare the modes: forced modes, and draws until both occur."""
