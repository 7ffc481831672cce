"""One file per published method. A file is found by its name; nothing has to be registered."""
