"""Quantities that methods read from texts, columns and models."""
