"""What a run left behind, read, measured and drawn."""
