"""The model as a whole: the transformer with all it takes to use it, on disk and in memory."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Float

from jaxspec import artefacts
from jaxspec.errors import InputError
from jaxspec.foundation.answers import NOTHING_GIVEN, OUTSIDE, Answer
from jaxspec.foundation.gaia_xp import basis_arrays, basis_from_arrays
from jaxspec.foundation.network import SMALLEST, FoundationConfig, Mixture, StarTransformer
from jaxspec.foundation.table import Table, short
from jaxspec.foundation.xp import XPBasis
from jaxspec.networks.base import ArrayLike
from jaxspec.settings import build

KIND = "foundation"
REMAKE = "give the folder `model` of experiments.pretrain"
BLOCK = (
    256  # stars of each call of the compiled program, which is always filled up: numbers never depend on it
)
DOMAIN = ("xp_colour", "bp_1", "bp_2", "rp_1", "rp_2", "g", "bp_rp", "g_j", "j_h", "h_k", "a_k")
"""Quantities by whose range a star is judged to be like the training stars."""


@dataclass(frozen=True, eq=False)
class FoundationModel:
    """Distributions of any quantities of a star given any others.

    Attributes:
        network: the transformer.
        basis: from Gaia XP spectra to the coefficients it knows; None where it knows none.
        domain: lowest and highest value of quantities among the training stars.
        provenance: facts about the training.
        temperature: by quantity, offset and slope by which widths of its answers are changed
            (`Answer.widened`), found on validation stars.
    """

    network: StarTransformer
    basis: XPBasis | None
    domain: Mapping[str, tuple[float, float]]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    temperature: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """Quantities that can be given and asked for."""
        return self.network.names

    def predict(self, stars: Table, ask: Iterable[str], batch: int = BLOCK) -> Answer:
        """The distribution of each quantity asked for, given all that `stars` has of the others.

        A quantity that is itself given is answered from all else, and then combined with the given value by
        Bayes' theorem. The numbers of a star do not depend on which stars are beside it, nor on the order of
        columns.

        Raises: InputError naming a quantity that the model does not know.
        """
        ask = tuple(ask)
        if not ask:
            raise InputError("ask", "nothing", f"some of {short(self.names)}", "name what you want to know")
        for name in ask:
            self.index(name, "ask")
        plain = [name for name in ask if name not in stars.names]
        answers = {
            name: (part, i) for part in [self._answer(stars, plain, batch)] for i, name in enumerate(plain)
        }
        for name in ask:
            if name in stars.names:
                given = stars.columns([name])
                part = self._answer(stars.without([name]), [name], batch)
                answers[name] = (part.measured(given.values, np.nan_to_num(given.errors)), 0)
        log_weight, mean, scale = (
            np.stack([getattr(part, field)[:, i] for part, i in (answers[name] for name in ask)], 1)
            for field in ("log_weight", "mean", "scale")
        )
        return Answer(ask, log_weight, mean, scale, self.flags(stars), stars.source)

    def _answer(self, stars: Table, ask: Sequence[str], batch: int) -> Answer:
        """Distributions of quantities that are not given."""
        asked = np.array([self.index(name) for name in ask], int)
        value, error = self.layout(stars)
        parts = []
        for start in range(0, len(value) if ask else 0, batch):
            rows = slice(start, start + batch)
            mixture = self._forward(_filled(value[rows], batch), _filled(error[rows], batch), asked)
            parts.append([np.asarray(x)[: len(value[rows])] for x in mixture])
        log_weight, mean, scale = (
            (np.concatenate(x).astype(np.float64) for x in zip(*parts, strict=True))
            if parts
            else np.zeros((3, len(value), len(ask), self.network.config.components))
        )
        spread = np.asarray(self.network.spread[...], np.float64)[asked][:, None]
        centre = np.asarray(self.network.centre[...], np.float64)[asked][:, None]
        answer = Answer(
            tuple(ask), log_weight, mean * spread + centre, scale * spread, self.flags(stars), stars.source
        )
        change = np.array([self.temperature.get(name, (0.0, 0.0)) for name in ask]).reshape(-1, 2)
        return answer.widened(*change.T) if parts else answer

    def sample(self, seed: int, stars: Table, ask: Sequence[str], n: int = 100) -> Float[np.ndarray, "d n r"]:
        """Joint draws of several quantities: one after the other, each given those before it (the chain
        rule), so that they are as correlated as the model believes."""
        rng = np.random.default_rng(seed)
        ask = tuple(ask)
        draws = np.empty((n, stars.n_stars, len(ask)))
        repeated = stars.rows(np.tile(np.arange(stars.n_stars), n))
        for i, name in enumerate(ask):
            draw = self.predict(repeated, [name]).sample(rng, 1)[0, :, 0]
            draws[:, :, i] = draw.reshape(n, -1)
            repeated = _with(repeated, name, draw)
        return draws

    def log_prob(
        self, stars: Table, ask: Sequence[str], values: Float[np.ndarray, "n r"]
    ) -> Float[np.ndarray, " n"]:
        """Joint log-density of several quantities, of which `sample` gives draws."""
        total = np.zeros(stars.n_stars)
        for i, name in enumerate(ask):
            total += self.predict(stars, [name]).log_prob(values[:, i : i + 1])[:, 0]
            stars = _with(stars, name, values[:, i])
        return total

    def summary(self, stars: Table) -> Float[np.ndarray, "n s"]:
        """The latents of each star as one vector: similar stars are near one another."""
        value, error = self.layout(stars)
        parts = [
            np.asarray(
                self._encode(_filled(value[i : i + BLOCK], BLOCK), _filled(error[i : i + BLOCK], BLOCK))
            )[: len(value[i : i + BLOCK])]
            for i in range(0, len(value), BLOCK)
        ]
        return np.concatenate(parts).reshape(len(value), -1)

    def index(self, name: str, where: str = "quantity") -> int:
        """Where the network keeps a quantity.

        Raises: InputError for one that it does not know.
        """
        if name not in self.names:
            raise InputError(
                where,
                f"{name!r}, which the model never saw in training",
                f"some of {short(self.names)}",
                "leave it out",
            )
        return self.names.index(name)

    def layout(self, stars: Table) -> tuple[Float[np.ndarray, "n k"], Float[np.ndarray, "n k"]]:
        """Values and errors in the network's own columns, NaN where a quantity is absent. Errors of 0, which
        the network never saw of most quantities, become the typical ones of its training.

        Raises: InputError naming a quantity that the model does not know.
        """
        value = np.full((stars.n_stars, len(self.names)), np.nan, np.float32)
        error = np.zeros_like(value)
        log_error, spread = (np.asarray(x[...], float) for x in (self.network.log_error, self.network.spread))
        typical = np.maximum(np.exp(log_error) - SMALLEST, 0.0) * spread
        for i, name in enumerate(stars.names):
            column = self.index(name, "given")
            given = np.nan_to_num(stars.errors[:, i])
            value[:, column], error[:, column] = (
                stars.values[:, i],
                np.where(given > 0, given, typical[column]),
            )
        return value, error

    def flags(self, stars: Table) -> np.ndarray:
        """Bits of `answers.FLAGS` for each star."""
        flags = np.where(np.isfinite(stars.values).any(1), 0, NOTHING_GIVEN)
        for name, (low, high) in self.domain.items():
            if name in stars.names:
                value = stars.values[:, stars.place(name)]
                flags |= np.where((value < low) | (value > high), OUTSIDE, 0)
        return flags.astype(np.int64)

    def _forward(self, value: np.ndarray, error: np.ndarray, asked: np.ndarray) -> Mixture:
        return _answer(*self._parts, value, error, asked)

    def _encode(self, value: np.ndarray, error: np.ndarray) -> jax.Array:
        graph, state = self._parts
        return _latents(graph, state, value, error)

    @functools.cached_property
    def _parts(self) -> tuple[nnx.GraphDef, Any]:
        return nnx.split(self.network)

    def save(self, folder: str | os.PathLike, dtype: str = "float16") -> Path:
        """Write the model as an artefact; weights in `dtype`, statistics in full precision."""
        weights = nnx.to_pure_dict(nnx.state(self.network, nnx.Param))
        arrays = {f"weights/{path}": np.asarray(x).astype(dtype) for path, x in _flat(weights)}
        for name in ("centre", "spread", "log_error"):
            arrays[f"statistics/{name}"] = np.asarray(getattr(self.network, name)[...], np.float32)
        if self.basis is not None:
            arrays |= basis_arrays(self.basis)
        settings = {
            "network": dataclasses.asdict(self.network.config),
            "names": list(self.names),
            "temperature": {k: list(v) for k, v in self.temperature.items()},
            "basis": None if self.basis is None else {"bp": "v375wi", "rp": "v142r", "release": "Gaia DR3"},
        }
        domain = artefacts.domain() | {"quantities": {k: list(v) for k, v in self.domain.items()}}
        return artefacts.save(folder, KIND, arrays, settings, domain, self.provenance)

    @classmethod
    def load(cls, folder: str | os.PathLike | None = None) -> FoundationModel:
        """The model in a folder, by default that in the package.

        Raises: InputError where there is none, or its files are damaged.
        """
        place = shipped() if folder is None else Path(folder)
        stored = artefacts.load(place, KIND, REMAKE)
        arrays, settings = stored.arrays, stored.settings
        with artefacts.understood(str(place), stored.config, REMAKE):
            config = build(FoundationConfig, settings["network"])
            statistics = [arrays[f"statistics/{name}"] for name in ("centre", "spread", "log_error")]
            network = StarTransformer(config, tuple(settings["names"]), *statistics, rngs=nnx.Rngs(0))
            state = nnx.to_pure_dict(nnx.state(network, nnx.Param))
            loaded = _unflat(
                {path: jnp.asarray(arrays[f"weights/{path}"], jnp.float32) for path, _ in _flat(state)}, state
            )
            nnx.update(network, _as_state(network, loaded))
            basis = basis_from_arrays(arrays) if settings["basis"] else None
            domain = {k: (float(v[0]), float(v[1])) for k, v in stored.config["domain"]["quantities"].items()}
            temperature = {k: (float(v[0]), float(v[1])) for k, v in settings["temperature"].items()}
            return cls(network, basis, domain, stored.config["provenance"], temperature)


def shipped() -> Path:
    """The folder of the weights in the package."""
    return Path(str(resources.files("jaxspec.foundation"))) / "weights" / "gaia_xp"


def domain_of(table: Table, share: float = 0.001) -> dict[str, tuple[float, float]]:
    """Range of the training stars in each quantity of `DOMAIN`, but for a `share` at either end."""
    ranges = {}
    for name in DOMAIN:
        if name in table.names:
            low, high = np.nanquantile(table.values[:, table.place(name)], (share, 1.0 - share))
            ranges[name] = (float(low), float(high))
    return ranges


@functools.partial(jax.jit, static_argnums=0)
def _answer(graph: nnx.GraphDef, state: Any, value: ArrayLike, error: ArrayLike, asked: ArrayLike) -> Mixture:
    network = nnx.merge(graph, state)
    return network.reply(network.encode(np.arange(value.shape[1]), value, error), asked)


@functools.partial(jax.jit, static_argnums=0)
def _latents(graph: nnx.GraphDef, state: Any, value: ArrayLike, error: ArrayLike) -> jax.Array:
    return nnx.merge(graph, state).encode(np.arange(value.shape[1]), value, error)


def _filled(rows: np.ndarray, size: int) -> np.ndarray:
    return np.pad(rows, ((0, size - len(rows)), (0, 0)))


def _with(stars: Table, name: str, value: np.ndarray) -> Table:
    """The stars with one more exact quantity, or with this value of it."""
    if name in stars.names:
        stars = stars.without([name])
    return Table(
        (*stars.names, name),
        np.concatenate([stars.values, value[:, None]], 1),
        np.concatenate([stars.errors, np.zeros((len(value), 1))], 1),
        stars.source,
    )


def _flat(tree: Any) -> list[tuple[str, Any]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [(jax.tree_util.keystr(path, simple=True, separator="/"), x) for path, x in leaves]


def _unflat(arrays: Mapping[str, jax.Array], template: Any) -> Any:
    return jax.tree.unflatten(jax.tree.structure(template), [arrays[path] for path, _ in _flat(template)])


def _as_state(network: StarTransformer, values: Any) -> Any:
    state = nnx.state(network, nnx.Param)
    nnx.replace_by_pure_dict(state, values)
    return state
