"""Prompts from files, from the hub, and from procedural generators."""
