"""A fast emulator of the synthesis: labels to spectrum through a small network in a compressed basis.

A perceptron maps the labels to the coefficients of a principal-component basis of spectra on velocity grids,
broadened by a Gaussian of `base_sigma` km/s, finer than any instrument it is used for. One matrix product
makes the spectrum.
"""

import io
import json
from importlib import resources
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

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

    def save(self, path: Path) -> None:
        """Write the weights to an `.npz` file, the basis in half precision.

        Each component is kept in units of its own largest value.
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
        header = {
            "grids": [[g.start, g.step, g.n] for g in self.grids],
            "base_sigma": self.base_sigma,
            "labels": self.label_set.names,
            "approximation": self.approximation,
            "summary": json.loads(self.summary),
        }
        buffer = io.BytesIO()
        np.savez_compressed(buffer, header=json.dumps(header), **arrays)
        Path(path).write_bytes(buffer.getvalue())

    @staticmethod
    def load(path: Path | None = None) -> "Emulator":
        """Read weights written by `save`; without a path, the shipped ones (GIRAFFE HR10 and HR21).

        Raises InputError when the file is missing or was made for other labels.
        """
        if path is None:
            with resources.as_file(resources.files("jaxspec.physics.data") / "emulator.npz") as shipped:
                return Emulator.load(shipped)
        path = Path(path)
        if not path.is_file():
            raise InputError(
                str(path), "no such file", "emulator weights (.npz)", "train one with experiments.emulator"
            )
        with np.load(path) as data:
            header = json.loads(str(data["header"]))
            if list(NINE_LABELS.names) != list(header["labels"]):
                raise InputError(
                    str(path), f"labels {header['labels']}", f"{NINE_LABELS.names}", "retrain the emulator"
                )
            n_layers = sum(name.startswith("weight_") for name in data)
            return Emulator(
                layers=[
                    (jnp.asarray(data[f"weight_{i}"]), jnp.asarray(data[f"bias_{i}"]))
                    for i in range(n_layers)
                ],
                basis=jnp.asarray(data["basis"].astype(np.float32) * data["basis_peak"]),
                mean=jnp.asarray(data["mean"]),
                centre=jnp.asarray(data["centre"]),
                scale=jnp.asarray(data["scale"]),
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
