"""Cross-calibration of surveys: one scale for all, from the stars they share and a few known absolutely.

`observations` says what goes in, `model` what is believed, `inference` fits it, and `predict` puts new stars
on the common scale or says what a survey would report for them.
"""
