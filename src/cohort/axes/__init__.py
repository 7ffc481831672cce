"""Pure functions, a module per axis of the training step. They know tensors and `Batch`, nothing else."""
