"""What methods read from texts, columns and models."""
