"""Procedural tasks with exact answers: a file a generator, each a function of a source of randomness and its options."""
