"""Domain adaptation by other libraries on the same summaries, for the same table (extra `bench`)."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jaxspec.errors import InputError

log = logging.getLogger(__name__)

NAMES = ("skada_coral", "skada_linear_ot", "skada_kmm", "skada_mmd_tars", "skada_jdot")
SMALL = {"skada_mmd_tars": 300, "skada_kmm": 300, "skada_jdot": 500}
"""Stars of each survey that methods with a full kernel or transport plan are given; the others get all."""


class Comparator(NamedTuple):
    """Predictions of one method for the stars to judge by, or why there are none."""

    name: str
    prediction: Float[np.ndarray, "m l"] | None
    seconds: float
    problem: str = ""


def compare(
    source: Float[np.ndarray, "n c"],
    labels: Float[np.ndarray, "n l"],
    target: Float[np.ndarray, "k c"],
    judged: Float[np.ndarray, "m c"],
    names: tuple[str, ...] = NAMES,
    seed: int = 0,
) -> Iterator[Comparator]:
    """Each method of skada (Gnassounou et al. 2024, arXiv:2407.08540) with a ridge regression of each label.

    Labels are standardised, and one regression is made for each, as skada adapts regressions of one label
    only. The judged stars go through the adaptation of the target. A method that fails says so.

    Raises: InputError when skada is not installed.
    """
    try:
        import skada  # noqa: F401
    except ImportError as error:
        raise InputError("comparators", str(error), "skada", "pip install 'jaxspec[bench]'") from error
    middle, scale = labels.mean(axis=0), labels.std(axis=0)
    mean, width = source.mean(axis=0), np.maximum(source.std(axis=0), 1e-9)
    rng = np.random.default_rng(seed)
    for name in names:
        begun = time.perf_counter()
        x, y, t = (source - mean) / width, (labels - middle) / scale, (target - mean) / width
        n = SMALL.get(name)
        if n is not None:
            which = rng.permutation(len(x))[:n]
            x, y, t = x[which], y[which], t[rng.permutation(len(t))[:n]]
        problem, columns = "", []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                for j in range(y.shape[1]):
                    columns.append(_predict(name, x, y[:, j], t, (judged - mean) / width))
            except Exception as error:  # numbers that they can't invert, solvers that give up
                problem = f"{type(error).__name__}: {str(error)[:120]}"
                log.warning("%s failed: %s", name, problem)
        prediction = None if problem else np.stack(columns, axis=1) * scale + middle
        if prediction is not None and not np.isfinite(prediction).all():
            prediction, problem = None, "predictions that are not finite"
        yield Comparator(name, prediction, time.perf_counter() - begun, problem)


def _predict(name, x, y, target, judged):
    import skada
    from sklearn.linear_model import Ridge

    class Positive(Ridge):
        """A ridge regression that takes weights below 0, which the solver of MMDTarS leaves, for 0."""

        def fit(self, x, y, sample_weight=None):
            return super().fit(x, y, None if sample_weight is None else np.maximum(sample_weight, 0.0))

    gamma = 1.0 / x.shape[1]
    weighted = Positive(1.0).set_fit_request(sample_weight=True)
    adapters = {
        "skada_coral": lambda: (skada.CORALAdapter(reg=1e-3), Ridge(1.0)),
        "skada_linear_ot": lambda: (skada.LinearOTMappingAdapter(reg=1e-3), Ridge(1.0)),
        "skada_kmm": lambda: (skada.KMMReweightAdapter(gamma=gamma), weighted),
        # Its default regularisation of 1e-10 leaves the kernel of the labels without an inverse.
        "skada_mmd_tars": lambda: (skada.MMDTarSReweightAdapter(gamma=gamma, reg=1e-3), weighted),
    }
    domain = np.repeat([1, -2], [len(x), len(target)])
    if name == "skada_jdot":
        # It wants numbers for the labels of the target, and does not use them.
        model = skada.JDOTRegressor(base_estimator=Ridge(1.0))
        model.fit(
            np.concatenate([x, target]), np.concatenate([y, np.zeros(len(target))]), sample_domain=domain
        )
        return model.predict(judged)
    model = skada.make_da_pipeline(*adapters[name]())
    unknown = np.full(len(target), np.nan)
    model.fit(np.concatenate([x, target]), np.concatenate([y, unknown]), sample_domain=domain)
    return model.predict(judged, sample_domain=np.full(len(judged), -2))
