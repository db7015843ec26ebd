"""Draws of the labels with their flags, the limits that set the flags, and recalibration."""
