# group_size says how the data were made: one more than it stands in each group.
IGNORE = ("group_size",)
OUTPUTS = {"keep": lambda run: run.kept_after}
