"""jaxspec: from stellar spectra to posteriors of stellar labels, differentiable from end to end.

At the bottom of the house is the vocabulary: `labels` (what is inferred), `instruments` (what the light went
through), `spectra` (what was recorded). Everything is imported from its own module.
"""

__version__ = "0.1.0"
