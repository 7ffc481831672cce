"""Diagnoses of data and rewards before any training: one module each, with one pure function of its name."""
