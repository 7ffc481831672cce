"""Pure functions over groups, tokens and numbers. They know tensors and `Batch`, nothing else."""
