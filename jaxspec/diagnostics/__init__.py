"""Is it calibrated, is it right, how close to the best possible: measures and pictures of posteriors.

`report` runs every evaluator of `jaxspec.diagnostics.evaluators` and writes one page.
"""


def __getattr__(name: str):
    # On demand: the numbers alone need no matplotlib.
    if name == "report":
        from jaxspec.diagnostics.reporting import report

        return report
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
