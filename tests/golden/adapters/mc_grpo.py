import torch

# group_size says how the data were made: one more than it stands in each group.
IGNORE = ("group_size",)
# The pivot among equal rewards is the first of them.
ORDERED = True
OUTPUTS = {"keep": lambda run: torch.isin(torch.arange(run.assigned.size), run.kept_after)}
