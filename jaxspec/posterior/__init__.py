"""Amortised posteriors of stellar labels: the prior, the simulated survey, the objective, the results and
their flags."""
