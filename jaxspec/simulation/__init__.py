"""Simulated observations: the prior of the labels, the nuisances of an observation, the simulator that turns
both into spectra, learned errors of real spectra, and planted faults."""
