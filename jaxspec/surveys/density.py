"""The survey model's posterior density over one flat vector, its mode, and coordinates in which it is round.

The posterior is nearly Gaussian, so the curvature at its mode says almost everything: in coordinates whitened
by it, samplers need neither long trajectories nor a mass matrix. Everything here is in double precision: the
log-density is a sum over thousands of stars of which differences of order one matter.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpyro import handlers
from numpyro.infer.util import log_density
from scipy.optimize import minimize

from jaxspec.errors import InputError
from jaxspec.surveys.marginal import configurations, gather_evidence, star_posterior
from jaxspec.surveys.model import (
    Batch,
    Structure,
    by_kind,
    marginal_model,
    sample_population,
    sample_terms,
)
from jaxspec.surveys.tied import Block

# Stars whose measurements are outliers with less than this probability keep only the configuration without.
CLEAR = 1e-3
STEP = 1e-4


class Site(NamedTuple):
    """A site of the model in the flat vector: its name, shape, and where it begins."""

    name: str
    shape: tuple[int, ...]
    start: int


class Layout:
    """The model's parameters as one flat vector."""

    def __init__(self, structure: Structure):
        self.structure = structure
        with handlers.seed(rng_seed=0), handlers.trace() as trace:
            sample_terms(structure)
            sample_population(structure)
        self.sites: list[Site] = []
        start, size = {}, 0
        for name, site in trace.items():
            self.sites.append(Site(name, site["value"].shape, size))
            start[name] = np.broadcast_to(site["fn"].mean, site["value"].shape)
            size += site["value"].size
        start["zero_point"] = structure.start[structure.free]
        self.size = size
        self.start = np.concatenate([np.ravel(start[site.name]) for site in self.sites]).astype(float)

    def parameters(self, flat: Float[Array, " d"]) -> dict[str, Array]:
        """Values of the sites by name."""
        return {s.name: flat[s.start : s.start + int(np.prod(s.shape))].reshape(s.shape) for s in self.sites}

    def terms(self, flat: Float[Array, " d"]):
        """The survey terms and population that a flat vector means."""
        with handlers.block(), handlers.seed(rng_seed=0), handlers.substitute(data=self.parameters(flat)):
            return sample_terms(self.structure), sample_population(self.structure)

    def names(self) -> list[str]:
        """One name per entry of the flat vector."""
        return [f"{s.name}{list(i)}" for s in self.sites for i in np.ndindex(s.shape)]

    def log_density(self, flat: Float[Array, " d"], batch: Batch) -> Float[Array, ""]:
        """Log of the posterior density, up to a constant."""
        with handlers.block():  # the sites are no business of a model that this is a factor of
            return log_density(marginal_model, (self.structure, batch), {}, self.parameters(flat))[0]


def to_device(batch: Batch) -> Batch:
    """The batch with its arrays in JAX."""
    return batch._replace(blocks=jax.tree.map(jnp.asarray, batch.blocks))


class Objective:
    """Value and gradient of the negative log-density for a fixed batch, compiled once."""

    def __init__(self, layout: Layout, batch: Batch):
        self.layout, self.batch = layout, to_device(batch)
        states, n_field, weight = batch.states, batch.n_field, batch.weight

        def negative(flat, blocks):
            return -layout.log_density(flat, Batch(blocks, n_field, weight, states))

        self.negative = negative
        self._call = jax.jit(jax.value_and_grad(negative))

    def __call__(self, flat: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = self._call(jnp.asarray(flat), self.batch.blocks)
        return float(value), np.asarray(gradient)


class Gaussian(NamedTuple):
    """A Gaussian approximation: `mean [d]` and `root [d, d]`, with covariance root root'."""

    mean: Float[np.ndarray, " d"]
    root: Float[np.ndarray, "d d"]


def outlier_probability(layout: Layout, batch: Batch, flat: np.ndarray) -> list[np.ndarray]:
    """For each block, the probability that each measurement of a star is an outlier `[n, m]`."""
    states, n_field, weight = batch.states, batch.n_field, batch.weight

    @jax.jit
    def run(flat, blocks):
        terms, population = layout.terms(flat)
        inputs = layout.structure.scales.input_matrix
        evidence = gather_evidence(terms, blocks, states, inputs)
        full = Batch(blocks, n_field, weight, states)
        found = by_kind(star_posterior, layout.structure.group_prior, population, full, evidence, states)
        return [one.outlier for one in found]

    return [np.asarray(x) for x in run(jnp.asarray(flat), to_device(batch).blocks)]


def separate(batch: Batch, outlier: list[np.ndarray], limit: float = CLEAR) -> Batch:
    """The same stars, those without a likely outlier in blocks of their own that know no outliers.

    Of a star whose measurements agree, the configurations with outliers add less than `limit` to the
    likelihood: leaving them out saves most of the work.
    """
    blocks: list[Block] = []
    states: list[np.ndarray] = []
    n_field = 0
    for number, (block, probability) in enumerate(zip(batch.blocks, outlier, strict=True)):
        clear = probability.max(axis=1) < limit
        everything = configurations(block.survey.shape[1])
        for which, chosen in ((clear, everything[:1]), (~clear, everything)):
            if which.any():
                blocks.append(block.take(which))
                states.append(chosen)
        n_field = len(blocks) if number < batch.n_field else n_field
    return Batch(tuple(blocks), n_field, (1.0,) * len(blocks), tuple(states))


def laplace(objective: Objective, start: np.ndarray, rounds: int = 4) -> Gaussian:
    """The Gaussian of the posterior's mode and curvature there.

    Quasi-Newton steps find the mode, in coordinates that the curvature whitens from the second round on.
    Raises `InputError` if the density is not finite at the start.
    """
    value, gradient = objective(start)
    if not (np.isfinite(value) and np.isfinite(gradient).all()):
        raise InputError(
            "surveys",
            "a likelihood that is not finite",
            "labels and errors of plausible size",
            "check units: values must be in the label set's units",
        )
    size = len(start)
    current = Gaussian(start, 0.1 * np.eye(size))
    for number in range(rounds):

        def whitened(u, g=current):
            value, gradient = objective(g.mean + g.root @ u)
            return value, g.root.T @ gradient

        limit = 300 if number == 0 else 60
        found = minimize(
            whitened,
            np.zeros(size),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": limit, "maxcor": 30, "gtol": 1e-3},
        )
        mean = current.mean + current.root @ found.x
        if number and np.abs(found.x).max() < 0.05:
            return Gaussian(mean, current.root)
        current = Gaussian(mean, curvature_root(objective, mean))
    return current


def curvature_root(objective: Objective, mean: np.ndarray) -> Float[np.ndarray, "d d"]:
    """Cholesky root of the inverse Hessian, from central differences of exact gradients. Directions in which
    the density is flatter than the prior, or not even concave, get the prior's width. Triangular, so that a
    parameter whose posterior is wider than the curvature says is still one coordinate."""
    size = len(mean)
    hessian = np.empty((size, size))
    for i in range(size):
        step = np.zeros(size)
        step[i] = STEP
        hessian[i] = (objective(mean + step)[1] - objective(mean - step)[1]) / (2.0 * STEP)
    value, vector = np.linalg.eigh(0.5 * (hessian + hessian.T))
    return np.linalg.cholesky(vector / np.maximum(value, 0.1) @ vector.T)
