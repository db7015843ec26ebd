"""Minibatched variational inference of the survey model, for up to millions of stars.

The guide is a Gaussian over all survey and population terms (true labels are integrated out star by star,
exactly, so none is needed for them). It starts from the curvature on a subset of stars, whose correlations it
keeps: in those coordinates the problem is nearly round, and a mean and a scale for each are learned. A free
covariance would have a hundred times as many parameters, and their noise. Minibatches are stratified by the
number of measurements. What is in memory is the minibatch, and a few integers per star that ties.

The mode that the guide starts from puts too much into the surveys' scatter and too little into their errors,
the more the fewer stars there are; the guide does not.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from jaxtyping import PRNGKeyArray
from numpyro.infer import SVI, Trace_ELBO
from numpyro.infer.autoguide import AutoNormal
from numpyro.optim import optax_to_numpyro

from jaxspec.errors import InputError
from jaxspec.runs import UNKEPT, Item, tree_arrays, tree_from
from jaxspec.surveys.density import Gaussian, Layout, to_device
from jaxspec.surveys.marginal import configurations
from jaxspec.surveys.model import Batch
from jaxspec.surveys.observations import Sky
from jaxspec.surveys.tied import TieIndex, arrange


@dataclass(frozen=True)
class SviConfig:
    """How the guide is fitted.

    Attributes:
        batch: tied stars per step.
        steps: number of steps.
        learning_rate: of Adam at the start; falls to a twentieth along a cosine.
        particles: draws of the guide per step.
        subset: stars that the starting point is taken from.
        round: steps between two saves.
    """

    batch: int = 256
    steps: int = 3000
    learning_rate: float = 0.03
    particles: int = 2
    subset: int = 2000
    round: int = 250

    def __post_init__(self):
        for name in ("batch", "steps", "particles", "subset", "round"):
            if getattr(self, name) < 1:
                raise InputError(f"svi.{name}", f"{getattr(self, name)}", "1 or more", "change it")


class Minibatches:
    """Batches of tied stars: always the same number from each stratum of equally many measurements."""

    def __init__(self, sky: Sky, layout: Layout, index: TieIndex, size: int):
        self.sky, self.layout, self.index = sky, layout, index
        self.strata = []
        for grouped in (False, True):
            for m in np.unique(index.size[index.grouped == grouped]):
                self.strata.append(np.flatnonzero((index.size == m) & (index.grouped == grouped)))
        self.n_field = len(np.unique(index.size[~index.grouped]))
        share = [len(x) / len(index) for x in self.strata]
        self.sizes = [min(len(x), max(8, round(size * f))) for x, f in zip(self.strata, share, strict=True)]
        self.weight = tuple(len(x) / n for x, n in zip(self.strata, self.sizes, strict=True))
        counts = [int(index.size[x[0]]) for x in self.strata]
        self.states = tuple(configurations(m) for m in counts)

    def draw(self, rng: np.random.Generator) -> Batch:
        """One batch; every star of the batch stands for `weight` of its stratum."""
        which = np.concatenate(
            [rng.choice(x, n, replace=False) for x, n in zip(self.strata, self.sizes, strict=True)]
        )
        structure = self.layout.structure
        blocks, n_field = arrange(self.sky, structure.scales, structure.basis, self.index, which)
        return to_device(Batch(tuple(blocks), n_field, self.weight, self.states))


class FixedBatch:
    """All tied stars, in every step."""

    def __init__(self, batch: Batch):
        self.batch = to_device(batch)
        self.n_field, self.weight, self.states = batch.n_field, batch.weight, batch.states

    def draw(self, rng: np.random.Generator) -> Batch:
        """The batch."""
        return self.batch


def run_svi(
    layout: Layout,
    batches: Minibatches | FixedBatch,
    start: Gaussian,
    key: PRNGKeyArray,
    config: SviConfig = SviConfig(),
    item: Item = UNKEPT,
) -> tuple[Gaussian, np.ndarray]:
    """Fit the guide; returns it, averaged over the last half of the steps, and the losses.

    `start` is the Gaussian approximation of the posterior of all stars that the guide's coordinates are taken
    from. `item` is where to save to and go on from.
    """
    mean, root = jnp.asarray(start.mean), jnp.asarray(start.root)
    states, n_field, weight = batches.states, batches.n_field, batches.weight

    @jax.jit  # NumPyro runs the model once outside of any compiled function
    def log_density(u, blocks):
        return layout.log_density(mean + root @ u, Batch(blocks, n_field, weight, states))

    def model(blocks):
        u = numpyro.sample("u", dist.Normal(0.0, 1.0).expand((layout.size,)).to_event(1).mask(False))
        numpyro.factor("posterior", log_density(u, blocks))

    guide = AutoNormal(
        model, init_scale=1.0, init_loc_fn=numpyro.infer.init_to_value(values={"u": jnp.zeros(layout.size)})
    )
    schedule = optax.cosine_decay_schedule(config.learning_rate, config.steps, 0.05)
    svi = SVI(model, guide, optax_to_numpyro(optax.adam(schedule)), Trace_ELBO(config.particles))
    seed = int(jax.random.randint(key, (), 0, 2**31 - 1))
    first = batches.draw(np.random.default_rng((seed, 0)))
    state = svi.init(key, first.blocks)
    update = jax.jit(svi.update)
    total, losses, done = None, np.zeros(config.steps), 0
    if item.done:
        saved = item.load()
        state, losses, done = tree_from(state, saved), saved["losses"], int(saved["steps"])
        total = [saved["loc"], saved["scale"]] if "loc" in saved else None
    for step in range(done, config.steps):
        batch = batches.draw(np.random.default_rng((seed, step)))
        state, loss = update(state, batch.blocks)
        losses[step] = float(loss)
        if step >= config.steps // 2:
            params = svi.get_params(state)
            current = [np.asarray(params["u_auto_loc"]), np.asarray(params["u_auto_scale"])]
            total = current if total is None else [a + b for a, b in zip(total, current, strict=True)]
        if item.path is not None and ((step + 1) % config.round == 0 or step + 1 == config.steps):
            average = {} if total is None else {"loc": total[0], "scale": total[1]}
            item.save(steps=step + 1, losses=losses, **average, **tree_arrays(state))
    n = config.steps - config.steps // 2
    assert total is not None
    loc, scale = total[0] / n, total[1] / n
    return Gaussian(start.mean + start.root @ loc, start.root * scale), losses
