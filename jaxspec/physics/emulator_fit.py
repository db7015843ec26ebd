"""Fit an emulator to synthetic spectra: a principal-component basis, and a perceptron to its coefficients."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float, PRNGKeyArray
from scipy.sparse import csr_array
from tqdm import tqdm

from jaxspec.errors import InputError
from jaxspec.instruments import SPEED_OF_LIGHT
from jaxspec.labels import LabelSet
from jaxspec.physics.broadening import VelocityGrid
from jaxspec.physics.emulator import Emulator, relative_inputs

BLOCK_STEPS = 500


def gaussian_resampling(wavelength: Float[np.ndarray, " p"], grid: VelocityGrid, sigma: float) -> csr_array:
    """Sparse matrix [grid.n, p] that broadens flux by `sigma` km/s and samples it on `grid`.

    `wavelength` (A) is where the flux is given. Raises InputError when the grid reaches beyond the
    wavelengths (four sigma are needed beyond its ends).
    """
    centres = grid.wavelength
    reach = 4.5 * sigma / SPEED_OF_LIGHT
    if centres[0] * (1 - reach) < wavelength[0] or centres[-1] * (1 + reach) > wavelength[-1]:
        raise InputError(
            "emulator grid",
            f"{centres[0]:.2f}-{centres[-1]:.2f} A",
            f"inside {wavelength[0]:.2f}-{wavelength[-1]:.2f} A by {reach * centres[-1]:.2f} A",
            "synthesise a wider window or shorten the grid",
        )
    first = np.searchsorted(wavelength, centres * (1 - reach))
    last = np.searchsorted(wavelength, centres * (1 + reach))
    rows = np.repeat(np.arange(grid.n), last - first)
    columns = np.concatenate([np.arange(a, b) for a, b in zip(first, last, strict=True)])
    velocity = (wavelength[columns] / centres[rows] - 1) * SPEED_OF_LIGHT
    values = np.exp(-0.5 * (velocity / sigma) ** 2)
    sums = np.bincount(rows, values, grid.n)
    return csr_array((values / sums[rows], (rows, columns)), shape=(grid.n, len(wavelength)))


def principal_components(
    flux: Float[np.ndarray, "n p"], k: int, seed: int = 0
) -> tuple[Float[np.ndarray, " p"], Float[np.ndarray, "k p"]]:
    """Mean and first `k` orthonormal components of spectra.

    Randomised SVD with two power steps (Halko, Martinsson & Tropp 2011, SIAM Review 53, 217).
    """
    mean = flux.mean(axis=0)
    centred = flux - mean
    sample = centred @ np.random.default_rng(seed).standard_normal((flux.shape[1], k + 20)).astype(np.float32)
    for _ in range(2):
        sample = np.linalg.qr(sample)[0]
        sample = centred @ (centred.T @ sample)
    small = np.linalg.qr(sample)[0].T @ centred
    return mean, np.linalg.svd(small, full_matrices=False)[2][:k]


def fit_emulator(
    key: PRNGKeyArray,
    labels: Float[np.ndarray, "n l"],
    vmic: Float[np.ndarray, " n"],
    flux: Float[np.ndarray, "n p"],
    *,
    grids: tuple[VelocityGrid, ...],
    base_sigma: float,
    label_set: LabelSet,
    n_components: int = 150,
    widths: tuple[int, ...] = (300, 300),
    n_steps: int = 20_000,
    batch_size: int = 512,
    learning_rate: float = 2e-3,
    progress: bool = True,
) -> Emulator:
    """Emulator that minimises the mean squared flux error over the given spectra.

    Args:
        labels, vmic: of each spectrum, in the label set's units and km/s.
        flux: on all `grids` one after the other, broadened by `base_sigma` km/s.
        n_components: of the basis. widths: of the hidden layers.
        n_steps, batch_size, learning_rate: of Adam with a cosine schedule.
    """
    mean, basis = principal_components(flux, n_components)
    target = (flux - mean) @ basis.T
    size = target.std(axis=0)
    raw = np.asarray(
        jax.vmap(lambda x, v: relative_inputs(x, v, label_set))(jnp.asarray(labels), jnp.asarray(vmic))
    )
    centre = 0.5 * (raw.max(axis=0) + raw.min(axis=0))
    scale = 0.5 * (raw.max(axis=0) - raw.min(axis=0))
    inputs = jnp.asarray((raw - centre) / scale, jnp.float32)
    scaled = jnp.asarray(target / size, jnp.float32)
    # Flux error is the plain sum over components; this weight keeps the small ones from being learnt last.
    importance = jnp.asarray(size / size.sum(), jnp.float32)

    sizes = (inputs.shape[1], *widths, n_components)
    init_key, run_key = jax.random.split(key)
    layers = [
        (jax.random.normal(k, (a, b)) * np.sqrt(1.0 / a), jnp.zeros(b))
        for k, a, b in zip(jax.random.split(init_key, len(sizes) - 1), sizes[:-1], sizes[1:], strict=True)
    ]
    schedule = optax.cosine_onecycle_schedule(n_steps, learning_rate, pct_start=0.1)
    optimiser = optax.adam(schedule)

    def loss(layers, x, y):
        for weight, bias in layers[:-1]:
            x = jax.nn.gelu(x @ weight + bias)
        return jnp.mean(jnp.sum(importance * (x @ layers[-1][0] + layers[-1][1] - y) ** 2, axis=1))

    def step(carry, key):
        layers, state = carry
        rows = jax.random.randint(key, (batch_size,), 0, len(inputs))
        value, gradient = jax.value_and_grad(loss)(layers, inputs[rows], scaled[rows])
        updates, state = optimiser.update(gradient, state)
        return (optax.apply_updates(layers, updates), state), value

    run = jax.jit(lambda carry, keys: jax.lax.scan(step, carry, keys))
    carry = (layers, optimiser.init(layers))
    blocks = -(-n_steps // BLOCK_STEPS)
    bar = tqdm(range(blocks), desc="emulator", disable=not progress)
    for block in bar:
        keys = jax.random.split(
            jax.random.fold_in(run_key, block), min(BLOCK_STEPS, n_steps - block * BLOCK_STEPS)
        )
        carry, values = run(carry, keys)
        bar.set_postfix(loss=f"{float(values.mean()):.2e}")
    layers = carry[0]
    weight, bias = layers[-1]
    layers = [*layers[:-1], (weight * size, bias * size)]
    return Emulator(
        [(jnp.asarray(w, jnp.float32), jnp.asarray(b, jnp.float32)) for w, b in layers],
        jnp.asarray(basis, jnp.float32),
        jnp.asarray(mean, jnp.float32),
        jnp.asarray(centre, jnp.float32),
        jnp.asarray(scale, jnp.float32),
        grids,
        base_sigma,
        label_set,
    )


def emulator_errors(
    emulator: Emulator,
    labels: Float[np.ndarray, "n l"],
    vmic: Float[np.ndarray, " n"],
    flux: Float[np.ndarray, "n p"],
) -> tuple[dict, Float[np.ndarray, "n p"]]:
    """Absolute flux errors on spectra.

    Returns a summary (fractions of the continuum) and the residuals, emulator minus truth.
    """
    predicted = jax.jit(jax.vmap(emulator))(jnp.asarray(labels, jnp.float32), jnp.asarray(vmic, jnp.float32))
    residual = np.asarray(predicted) - flux
    size = np.abs(residual)
    per_star = size.mean(axis=1)
    return {
        "n_stars": len(flux),
        "mean_absolute_error": float(size.mean()),
        "percentile_99": float(np.percentile(size, 99)),
        "star_mean_95": float(np.percentile(per_star, 95)),
        "star_mean_worst": float(per_star.max()),
    }, residual


def with_summary(emulator: Emulator, summary: dict) -> Emulator:
    """The same emulator carrying how it was made and how well it does (`summary` must be JSON-able)."""
    return dataclasses.replace(emulator, summary=json.dumps(summary))
