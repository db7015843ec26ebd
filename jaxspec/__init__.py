"""jaxspec: from stellar spectra to posteriors of stellar labels, differentiable from end to end.

    import jaxspec
    spectra, refused = jaxspec.read_spectra("night1/*.fits")
    result = jaxspec.infer(spectra)
    result.table()

These names are imported when they are first used (`import jaxspec` alone imports no JAX); everything else is
imported from its own module. At the bottom of the house is the vocabulary: `labels` (what is inferred),
`instruments` (what the light went through), `spectra` (what was recorded).
"""

from typing import Any

__version__ = "0.2.0"

__all__ = [
    "Inference",
    "InferenceConfig",
    "bound",
    "calibrate",
    "evaluate",
    "explain",
    "find_populations",
    "infer",
    "load_posterior",
    "load_stars",
    "read_spectra",
    "read_table",
    "report",
    "simulate",
    "synthesize",
    "train",
    "usable",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        import importlib

        return getattr(importlib.import_module("jaxspec.api"), name)
    raise AttributeError(f"module 'jaxspec' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
