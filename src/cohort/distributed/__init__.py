"""Training over many ranks: processes that act as one trainer."""
