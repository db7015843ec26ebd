"""Baselines: ordinary regressions made for one task each, with the same split and inputs.

Gradient boosting (scikit-learn's histogram kind, which is at home with missing values), a plain network of
two hidden layers that stops early, on all inputs and on the better half of the coefficients, and ridge
regression. Inputs are standardised; where a method cannot do without a value it gets the training median.
"""

from __future__ import annotations

import importlib
import warnings
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxspec.errors import InputError
from jaxspec.foundation.table import Table
from jaxspec.foundation.tasks import Task

BASELINES = ("boosting", "mlp", "mlp_half", "ridge")
HALF = 20  # coefficients of each arm that `mlp_half` sees: the rest is mostly noise


def sklearn(module: str) -> Any:
    """A module of scikit-learn.

    Raises: InputError when it is not installed.
    """
    try:
        return importlib.import_module(f"sklearn.{module}")
    except ImportError as error:
        raise InputError(
            "scikit-learn", "it is not installed", "the baselines' package", "run pip install 'jaxspec[xp]'"
        ) from error


def predict(
    name: str, task: Task, train: Table, test: Table, seed: int = 0, max_iter: int = 200
) -> Float[np.ndarray, "n r"]:
    """Predictions of one baseline for the test stars; NaN for a quantity without enough training stars."""
    x, x_test = (stars.columns(task.given).values for stars in (train, test))
    y = train.columns(task.asked).values
    if name == "mlp_half":
        kept = [i for i, given in enumerate(task.given) if not _is_high(given)]
        x, x_test = x[:, kept], x_test[:, kept]
    if name != "boosting":
        middle = np.nanmedian(x, 0)
        x, x_test = (np.where(np.isfinite(a), a, middle) for a in (x, x_test))
        centre, scale = x.mean(0), x.std(0) + 1e-12
        x, x_test = (np.clip((a - centre) / scale, -10.0, 10.0) for a in (x, x_test))
    out = np.full((len(x_test), y.shape[1]), np.nan)
    if name.startswith("mlp"):
        known = np.isfinite(y).all(1)
        mean, spread = y[known].mean(0), y[known].std(0)
        network = sklearn("neural_network").MLPRegressor(
            hidden_layer_sizes=(128, 128), alpha=1e-4, early_stopping=len(x) >= 300, max_iter=80,
            n_iter_no_change=8, random_state=seed,
        )  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of convergence
            network.fit(x[known], ((y[known] - mean) / spread).squeeze())
        return network.predict(x_test).reshape(len(x_test), -1) * spread + mean
    for i in range(y.shape[1]):
        known = np.isfinite(y[:, i])
        if name == "ridge":
            model = sklearn("linear_model").RidgeCV(alphas=np.geomspace(1e-2, 1e4, 13))
        else:
            model = sklearn("ensemble").HistGradientBoostingRegressor(
                max_iter=max_iter, learning_rate=0.08, early_stopping=len(x) >= 300, random_state=seed,
                validation_fraction=0.1, n_iter_no_change=10,
            )  # fmt: skip
        # One thread: on cores that others use, the threads of the trees wait on one another for minutes.
        with importlib.import_module("threadpoolctl").threadpool_limits(1):
            out[:, i] = model.fit(x[known], y[known, i]).predict(x_test)
    return out


def _is_high(name: str) -> bool:
    stem, _, number = name.rpartition("_")
    return stem in ("bp", "rp") and number.isdigit() and int(number) > HALF
