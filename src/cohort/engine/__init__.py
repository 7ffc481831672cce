"""Sampling engines. An engine draws completions of token contexts; what they mean is none of its business."""
