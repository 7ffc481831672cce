"""Programs that draw: what they drew, and whether it is what was asked for."""
