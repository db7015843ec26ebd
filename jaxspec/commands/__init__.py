"""One module per job of the command line: a dataclass of settings, and `run(settings, folder)`, which reads,
calls the library and writes results."""
