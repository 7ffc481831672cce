"""What a run left behind, read, compared, diagnosed and shown."""
