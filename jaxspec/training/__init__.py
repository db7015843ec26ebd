"""Training: the loop, its state, its devices and its checkpoints; knows nothing about stars."""
