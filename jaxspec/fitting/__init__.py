"""Fits of the forward model to one spectrum at a time: check, refinement, exact posteriors, evidence."""
