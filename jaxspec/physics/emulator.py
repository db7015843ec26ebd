"""A fast emulator of the synthesis: labels to spectrum through a small network in a compressed basis.

A perceptron maps the labels to the coefficients of a principal-component basis of spectra on velocity grids,
broadened by a Gaussian of `base_sigma` km/s, finer than any instrument it is used for. One matrix product
makes the spectrum.
"""

import json
from importlib import resources
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxspec import artefacts
from jaxspec.errors import InputError
from jaxspec.labels import NINE_LABELS, LabelSet
from jaxspec.physics.broadening import VelocityGrid


class Emulator(eqx.Module):
    """Continuum-normalised flux of one star on `grids`, at rest.

    It is broadened by a Gaussian of `base_sigma` km/s. Inputs are the label set's labels and vmic; inside,
    abundances are taken relative to iron and everything is scaled to about (-1, 1). `summary` keeps how it
    was trained and its measured error against the synthesis, `approximation` whether that was in LTE (see
    `StellarModel.approximation`).
    """

    layers: list[tuple[Float[Array, "_ _"], Float[Array, " _"]]]
    basis: Float[Array, "k n"]
    mean: Float[Array, " n"]
    centre: Float[Array, " i"]
    scale: Float[Array, " i"]
    grids: tuple[VelocityGrid, ...] = eqx.field(static=True)
    base_sigma: float = eqx.field(static=True)
    label_set: LabelSet = eqx.field(static=True)
    summary: str = eqx.field(static=True, default="{}")
    approximation: str = eqx.field(static=True, default="LTE")

    def coefficients(self, labels: Float[Array, " l"], vmic: Float[Array, ""]) -> Float[Array, " k"]:
        """Coefficients in the basis."""
        x = (relative_inputs(labels, vmic, self.label_set) - self.centre) / self.scale
        for weight, bias in self.layers[:-1]:
            x = jax.nn.gelu(x @ weight + bias)
        weight, bias = self.layers[-1]
        return x @ weight + bias

    def __call__(self, labels: Float[Array, " l"], vmic: Float[Array, ""]) -> Float[Array, " n"]:
        """Flux on all grids, one after the other."""
        return self.mean + self.coefficients(labels, vmic) @ self.basis

    def save(self, folder: str | Path) -> Path:
        """Write the emulator into a folder (see `jaxspec.artefacts`), the basis in half precision.

        Each component is kept in units of its own largest value. Returns the folder.
        """
        peak = np.abs(np.asarray(self.basis)).max(axis=1, keepdims=True)
        arrays = {
            "basis": (np.asarray(self.basis) / peak).astype(np.float16),
            "basis_peak": peak.astype(np.float32),
            "mean": np.asarray(self.mean, np.float32),
            "centre": np.asarray(self.centre, np.float32),
            "scale": np.asarray(self.scale, np.float32),
        }
        for i, (weight, bias) in enumerate(self.layers):
            arrays[f"weight_{i}"] = np.asarray(weight, np.float32)
            arrays[f"bias_{i}"] = np.asarray(bias, np.float32)
        settings = {
            "grids": [[g.start, g.step, g.n] for g in self.grids],
            "base_sigma": self.base_sigma,
            "labels": self.label_set.names,
            "approximation": self.approximation,
        }
        reach = [(g.wavelength[0], g.wavelength[-1]) for g in self.grids]
        where = artefacts.domain(labels=self.label_set, wavelength=reach)
        return artefacts.save(folder, KIND, arrays, settings, where, {"summary": json.loads(self.summary)})

    @staticmethod
    def load(path: str | Path | None = None) -> "Emulator":
        """Read what `save` wrote, or a single file `emulator.npz` of before; without a path, the shipped
        weights (GIRAFFE HR10 and HR21).

        Raises InputError when files are missing or damaged, or were made for other labels.
        """
        path = SHIPPED if path is None else Path(path)
        if path.is_file():
            return _read_file(path)
        stored = artefacts.load(path, KIND, REMAKE)
        with artefacts.understood(str(path / artefacts.CONFIG), stored.config, REMAKE):
            summary = stored.config["provenance"]["summary"]
            return _make(stored.arrays, {**stored.settings, "summary": summary}, path)


KIND = "emulator"
REMAKE = "train one with experiments.emulator"
SHIPPED = Path(str(resources.files("jaxspec.physics.data") / "emulator"))


def _read_file(path: Path) -> Emulator:
    """An emulator in one file, as it was stored before there were folders."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        header = json.loads(str(arrays.pop("header")))
    except Exception as error:  # zipfile and zlib have errors of their own
        raise InputError(
            str(path),
            f"no emulator ({type(error).__name__}: {str(error)[:120]})",
            "the folder of a stored emulator",
            REMAKE,
        ) from error
    return _make(arrays, header, path)


def _make(arrays: dict[str, np.ndarray], header: dict[str, Any], path: Path) -> Emulator:
    if list(NINE_LABELS.names) != list(header["labels"]):
        raise InputError(
            str(path), f"labels {header['labels']}", f"{NINE_LABELS.names}", "retrain the emulator"
        )
    n_layers = sum(name.startswith("weight_") for name in arrays)
    return Emulator(
        layers=[
            (jnp.asarray(arrays[f"weight_{i}"]), jnp.asarray(arrays[f"bias_{i}"])) for i in range(n_layers)
        ],
        basis=jnp.asarray(arrays["basis"].astype(np.float32) * arrays["basis_peak"]),
        mean=jnp.asarray(arrays["mean"]),
        centre=jnp.asarray(arrays["centre"]),
        scale=jnp.asarray(arrays["scale"]),
        grids=tuple(VelocityGrid(start, step, int(n)) for start, step, n in header["grids"]),
        base_sigma=header["base_sigma"],
        label_set=NINE_LABELS,
        summary=json.dumps(header["summary"]),
        # Files from before this was written are in LTE.
        approximation=header.get("approximation", "LTE"),
    )


def relative_inputs(
    labels: Float[Array, " l"], vmic: Float[Array, ""], label_set: LabelSet
) -> Float[Array, " i"]:
    """Teff, log g, [Fe/H], the other abundances relative to iron, and vmic."""
    iron = label_set.column(labels, "fe_h")
    others = np.array([name in label_set.elements for name in label_set.names])
    return jnp.concatenate([jnp.where(others, labels - iron, labels), jnp.atleast_1d(vmic)])
