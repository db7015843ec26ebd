"""The network behind a posterior: its flow, the fit inside of it, ensembles, and its weights on disk."""
