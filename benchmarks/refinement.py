"""Exact posteriors by importance: how fast, how efficient, and are they those of long chains?

    python -m benchmarks.refinement [--stars 30] [--timed 256] [--snr 50] [--output FILE]

Stars are simulated by the emulator with both arms, and the stored weights' draws refined to the exact
posterior (`jaxspec.fitting.importance`). `--timed` stars give seconds a star (compilation apart), the
efficiency of their weights and the share with k below 0.7. The first `--stars` of them, with 8,000 weighted
draws, are held against the No-U-Turn sampler of NumPyro on the same density: 8 chains of 60 + 75 steps a
star, in coordinates of which the importance knows nothing but the best fit; where those disagree (R-hat above
1.05), 8 chains of 100 + 500 steps. For each star a network (scikit-learn) learns to tell the two samples
apart; the share of left-out draws that it gets right (C2ST, Lopez-Paz & Oquab 2017, ICLR) is 0.5 where they
are the same, give or take 0.02 with 400 draws of each (of 8,000 by weight, so that hardly one is chosen
twice): the mean of five such choices is taken. Beside it stand the same of two halves of the chains (what is
chance, and what the chains' own length leaves) and of the network's draws before refinement, and how wide
refined draws are in units of the chains, label by label.

Chains take one to three minutes a star, longer ones ten: those of each star are kept in a folder beside
`--output`, and a run that was stopped goes on from them.
"""

import argparse
import dataclasses
import json
import time
import zlib
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.diagnostics import effective_sample_size, split_gelman_rubin
from numpyro.infer import MCMC, NUTS
from sklearn.model_selection import cross_val_score
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from jaxspec.amortised.ensemble import load_ensemble
from jaxspec.fitting.importance import ImportanceConfig, trusted
from jaxspec.fitting.likelihood import (
    VSINI,
    LikelihoodConfig,
    Mode,
    log_density,
    observe_at,
)
from jaxspec.fitting.modes import fit_modes, positive
from jaxspec.inference import InferenceConfig, refine
from jaxspec.labels import label_set
from jaxspec.physics.forward import load_forward_model
from jaxspec.runs import atomically, describe_device, resumable, versions
from jaxspec.simulation.nuisances import PURE
from jaxspec.simulation.prior import HR, inside_polygon
from jaxspec.simulation.simulator import Simulator

SEED = 3
EXACT = InferenceConfig(refine="exact", exact=ImportanceConfig())
DRAWS, WEIGHTED = 2000, 8000
COMPARED, CHOICES = 400, 5
WARMUP, SAMPLES, CHAINS = 60, 75, 8
LONGER_WARMUP, LONGER_SAMPLES, MIXED = 100, 500, 1.05


# Distances from the polygon's sides are in these units.
STEP = jnp.array(label_set(*HR).step, jnp.float32)


def mirrored(x, low, high):
    """Mirror at an edge: chains do not see a wall."""
    return high - jnp.abs(high - (low + jnp.abs(x - low)))


def mirrored_in(polygon, point):
    """A point outside of a polygon mirrored at the side that is nearest."""
    begin = jnp.asarray(polygon) / STEP
    side = jnp.roll(begin, -1, axis=0) - begin
    away = point / STEP - begin
    along = jnp.clip(jnp.sum(away * side, axis=1) / jnp.sum(side**2, axis=1), 0.0, 1.0)
    nearest = jnp.argmin(jnp.sum((away - along[:, None] * side) ** 2, axis=1))
    across = jnp.array([-1.0, 1.0]) * side[nearest][::-1] / jnp.linalg.norm(side[nearest])
    image = point - 2.0 * (away[nearest] @ across) * across * STEP
    return jnp.where(inside_polygon(point, polygon), point, image)


def model(forward, prior, config, mode, root, flux):
    """The exact density of one star for NumPyro, in whitened coordinates with vsini mirrored at zero, and
    labels at the edges of the prior."""
    observed = observe_at(forward, config, mode, flux)
    flat = dist.ImproperUniform(dist.constraints.real_vector, (), (len(root),))
    u = mode.u + root @ numpyro.sample("z", flat)
    known, n_label = prior.label_set, len(prior.names)
    units = jnp.array(known.step)
    labels = mode.start + units * u[:n_label]
    fe_h = mirrored(known.column(labels, "fe_h"), *prior.fe_h_range)
    x_fe = mirrored(known.x_fe(labels), *prior.x_fe_range)
    image = dict(zip(known.elements, fe_h + x_fe, strict=True)) | {"fe_h": fe_h}
    image |= dict(zip(HR, mirrored_in(prior.polygon, known.take(labels, HR)), strict=True))
    labels = jnp.stack([image[name] for name in known.names])
    u = u.at[:n_label].set((labels - mode.start) / units).at[VSINI].set(jnp.abs(u[VSINI]))
    u = numpyro.deterministic("u", u)
    numpyro.factor("density", log_density(forward, prior, config, u, mode.start, observed))


def make_chains(forward, prior, longer: bool) -> MCMC:
    """The sampler of one star after another."""
    # Coordinates are white about the best fit: nothing is adapted but the length of steps.
    density = partial(model, forward, prior, LikelihoodConfig())
    return MCMC(
        NUTS(density, adapt_mass_matrix=False, max_tree_depth=6),
        num_warmup=LONGER_WARMUP if longer else WARMUP,
        num_samples=LONGER_SAMPLES if longer else SAMPLES,
        num_chains=CHAINS,
        chain_method="vectorized",
        progress_bar=False,
        jit_model_args=True,
    )


def starts(prior, mode: Mode, root: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Whitened places where chains begin: labels of draws `[s, l]` that the prior allows, nuisances of the
    best fit. A chain that begins outside of the prior never moves."""
    labels = draws[np.asarray(prior.supports(jnp.asarray(draws)))][:CHAINS]
    away = np.zeros((CHAINS, len(root)))
    n_label = labels.shape[1]
    away[:, :n_label] = (labels - mode.start) / prior.label_set.step - mode.u[:n_label]
    return np.linalg.solve(root, away.T).T


def run_chains(forward, prior, modes: Mode, flux: np.ndarray, draws: np.ndarray, folder: Path):
    """Of each star labels `[chains, samples, l]` of chains, worst R-hat and smallest effective sample size.
    Chains begin at `draws [s, n, l]`.

    A star's chains are kept in `folder` under a checksum of its spectrum: whichever network they began from,
    their density is the same.
    """
    settings = {
        "seed": SEED,
        "chains": CHAINS,
        "steps": [WARMUP, SAMPLES, LONGER_WARMUP, LONGER_SAMPLES],
        "likelihood": LikelihoodConfig(),
        "prior": prior,
        "forward": forward,
    }
    results: dict[int, tuple[np.ndarray, ...]] = {}
    place = modes.u.shape[1] + VSINI
    covariance = positive(modes.covariance)
    for longer in (False, True):
        chains = None
        names = [f"{zlib.crc32(x.tobytes()):08x}{'_longer' if longer else ''}" for x in flux]
        items = list(resumable(names, settings, folder))
        for star, item in enumerate(tqdm(items, desc="longer chains" if longer else "chains")):
            if longer and results[star][1] <= MIXED:
                continue
            if item.done:
                results[star] = tuple(item.load().values())
                continue
            slope = np.ones(len(covariance[star]))
            slope[place] = 0.5 / np.sqrt(max(modes.centre[star, place], 0.3))
            root = np.linalg.cholesky(covariance[star] * np.outer(slope, slope))
            mode = Mode(*(x[star] for x in modes))
            begin = {"z": jnp.asarray(starts(prior, mode, root, draws[:, star]), jnp.float32)}
            mode = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), mode)
            if chains is None or star % 10 == 0:
                # NumPyro compiles parts of a run anew each time: thirty stars would exhaust a process's maps.
                jax.clear_caches()
                chains = make_chains(forward, prior, longer)
            chains.run(
                jax.random.fold_in(jax.random.key(SEED), star),
                mode,
                jnp.asarray(root, jnp.float32),
                jnp.asarray(flux[star]),
                init_params=begin,
            )
            u = np.asarray(chains.get_samples(group_by_chain=True)["u"], float)[..., : modes.start.shape[1]]
            labels = modes.start[star] + prior.label_set.step * u
            results[star] = (labels, split_gelman_rubin(u).max(), effective_sample_size(u).min())
            item.save(**dict(zip(("labels", "r_hat", "effective"), results[star], strict=True)))
    return list(results.values())


def tell_apart(one: np.ndarray, other: np.ndarray, seed: int) -> float:
    """C2ST of draws `[s, l]`: the mean over several choices of some of them. Copies of a draw would be known
    again: each counts once."""
    rng = np.random.default_rng(seed)
    size = min(COMPARED, len(one), len(other))
    right = []
    for _ in range(CHOICES):
        pair = [rng.permutation(np.unique(rng.choice(x, size, replace=False), axis=0)) for x in (one, other)]
        n = min(map(len, pair))
        both, which = np.concatenate([x[:n] for x in pair]), np.repeat([0, 1], n)
        network = MLPClassifier((50, 50), early_stopping=True, max_iter=300, random_state=seed)
        right.append(cross_val_score(make_pipeline(StandardScaler(), network), both, which, cv=5).mean())
    return float(np.mean(right))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stars", type=int, default=30)
    parser.add_argument("--timed", type=int, default=256)
    parser.add_argument("--snr", type=float, default=50.0)
    parser.add_argument("--output", type=Path, default=Path("outputs/benchmarks/refinement.json"))
    args = parser.parse_args()
    if args.stars > args.timed:
        parser.error(f"--stars {args.stars}: at most as many as --timed, {args.timed}")
    posterior, _ = load_ensemble(None)
    forward = load_forward_model(posterior.instrument)
    nuisances = dataclasses.replace(PURE, only_arm=(), snr_range=(args.snr, args.snr))
    stars = Simulator(forward, config=nuisances).simulate(jax.random.key(SEED), args.timed)
    flux, ivar = np.asarray(stars.flux), np.asarray(stars.ivar)
    before = posterior.sample_normalised(jax.random.key(SEED), flux, ivar, DRAWS)
    result = {"device": describe_device(), "versions": versions(), "seed": SEED, "snr": args.snr}

    seconds = []
    for some in (slice(0, 8), slice(None)):  # the first compiles
        chosen = np.isin(np.arange(args.timed), np.arange(args.timed)[some])
        begun = time.perf_counter()
        after = refine(
            jax.random.key(SEED), forward, before.select(chosen), flux[chosen], ivar[chosen], EXACT
        )
        seconds.append(time.perf_counter() - begun)
    result["timed"] = {
        "stars": args.timed,
        "seconds_a_star": seconds[1] / args.timed,
        "compilation_seconds": seconds[0] - 8 * seconds[1] / args.timed,
        "median_efficiency": float(np.median(after.stats["efficiency"])),
        "k_below_0.7": float(np.mean(after.stats["pareto_k"] < 0.7)),
        "trusted": float(np.mean(trusted(after))),
    }
    print(json.dumps(result["timed"], indent=2), flush=True)

    some = np.arange(args.timed) < args.stars
    flux, ivar, before = flux[some], ivar[some], before.select(some)
    more = posterior.sample_normalised(jax.random.key(SEED + 1), flux, ivar, WEIGHTED)
    exact = dataclasses.replace(EXACT, exact=ImportanceConfig(n_draws=WEIGHTED))
    after = refine(jax.random.key(SEED), forward, more, flux, ivar, exact)
    modes = fit_modes(forward, before.median.astype(np.float32), flux, ivar)
    chains = run_chains(forward, posterior.prior, modes, flux, before.draws, args.output.with_suffix(""))
    c2st: dict[str, list[float]] = {"refined": [], "chains": [], "network": []}
    widths = []
    for star, (labels, *_) in enumerate(tqdm(chains, desc="C2ST")):
        both = labels.reshape(-1, labels.shape[-1])
        widths.append(after.draws[:, star].std(axis=0) / both.std(axis=0))
        c2st["refined"].append(tell_apart(after.draws[:, star], both, star))
        halves = labels.reshape(2, -1, labels.shape[-1])
        c2st["chains"].append(tell_apart(*halves, star))
        c2st["network"].append(tell_apart(before.draws[:, star], both, star))
    result["against_chains"] = {
        "stars": args.stars,
        "r_hat": [float(r_hat) for _, r_hat, _ in chains],
        "effective_draws_of_chains": [float(worth) for *_, worth in chains],
        "trusted": trusted(after).tolist(),
        "proposal": after.stats["proposal"].tolist(),
        "efficiency": after.stats["efficiency"].tolist(),
        "c2st": c2st,
        "median_c2st": {name: float(np.median(values)) for name, values in c2st.items()},
        "c2st_at_most_0.55": {name: int(np.sum(np.array(v) <= 0.55)) for name, v in c2st.items()},
        "median_width_over_chains": dict(
            zip(posterior.label_set.names, np.median(widths, axis=0).astype(float), strict=True)
        ),
    }
    print(json.dumps(result["against_chains"], indent=2))
    args.output.parent.mkdir(parents=True, exist_ok=True)
    atomically(args.output, lambda path: path.write_text(json.dumps(result, indent=2)))


if __name__ == "__main__":
    main()
