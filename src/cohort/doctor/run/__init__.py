"""Diagnoses of a run: one module each, with one pure function of its name."""
