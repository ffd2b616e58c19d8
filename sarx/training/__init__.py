"""Training: the loop as a generator, its step, evaluation, metrics, checkpoints and streams of randomness."""
