"""Training learns the truth behind noisy values, from whatever is shown, and goes on after a kill."""

import jax
import numpy as np
import pytest
from flax import nnx

from jaxspec.errors import InputError
from jaxspec.foundation.model import FoundationModel
from jaxspec.foundation.training import SITUATIONS, TaskConfig, make_loss, make_network, make_situations
from jaxspec.training import ArraySource, OptimiserConfig, TrainConfig, fit
from tests.foundation.small import CONFIG, NAMES, universe

REAL = (
    *(f"bp_{i}" for i in range(1, 9)),
    *(f"rp_{i}" for i in range(1, 9)),
    "xp_colour",
    "g",
    "bp_rp",
    "teff",
    "a_k",
)


def train(table, n_steps, directory=None, seed=0):
    network = make_network(CONFIG, table, rngs=nnx.Rngs(seed))
    source = ArraySource((table.values.astype("f4"), table.errors.astype("f4")), 128)
    config = TrainConfig(
        n_steps, OptimiserConfig(learning_rate=1e-2, warmup_steps=20, ema_decay=0.98, weight_decay=0.0),
        log_every=100, checkpoint_every=10, progress=False,
    )  # fmt: skip
    loss = make_loss(table.names, TaskConfig(n_others=2))
    return fit(network, loss, config, key=jax.random.key(1), source=source, directory=directory)


def test_situations_show_what_they_say():
    given = np.asarray(make_situations(REAL, TaskConfig(never_given=("a_k",)))(jax.random.key(0), 20_000))
    bp, rp = given[:, :8], given[:, 8:16]
    shares = {
        "all": (bp.all(1) & rp.all(1)).mean(),
        "bp": (bp.all(1) & ~rp.any(1)).mean(),
        "rp": (rp.all(1) & ~bp.any(1)).mean(),
        "none": (~bp.any(1) & ~rp.any(1)).mean(),
    }
    for name, share in shares.items():
        # "first" and "some" may by chance show all or nothing, too
        assert SITUATIONS[name] - 0.015 < share < SITUATIONS[name] + 0.12, name
    assert not given[:, REAL.index("a_k")].any()
    assert 0.4 < given[:, REAL.index("teff")][~bp.any(1) & ~rp.any(1)].mean() < 0.8
    assert (bp[:, 0] >= bp[:, 7])[(bp.sum(1) == rp.sum(1)) & ~given[:, 16]].mean() > 0.5


@pytest.mark.slow
def test_the_truth_is_learnt_and_not_the_noise():
    """Of a linear Gaussian universe the answer is known: the posterior of the true value. An answer that had
    the noise of the training values in it would be 1.7 times too wide."""
    table = universe(4000, 0, noise=0.5)
    model = FoundationModel(train(table, 700).model, None, {})
    test = universe(1000, 9, noise=0.5)
    answer = model.predict(test.columns(NAMES[:5]), ["teff"])
    mix = np.array([[1, 0], [0, 1], [1, 1], [2, 1], [1, 2]], float)
    posterior = np.linalg.inv(np.eye(2) + mix.T @ mix / 0.25)
    wanted = np.array([1.0, -1.0])
    exact_mean = test.values[:, :5] @ mix @ posterior @ wanted / 0.25
    exact_sigma = np.sqrt(wanted @ posterior @ wanted)
    assert np.std(answer.expectation[:, 0] - exact_mean) < 0.35 * exact_sigma
    assert np.median(answer.deviation[:, 0]) == pytest.approx(exact_sigma, rel=0.2)
    nothing = test.columns(NAMES[:5])._replace(values=np.full((1000, 5), np.nan))
    prior = model.predict(nothing, ["teff"])
    assert prior.deviation[0, 0] == pytest.approx(np.sqrt(2.0), rel=0.2)
    assert np.ptp(prior.deviation) == 0.0


@pytest.mark.slow
def test_a_killed_training_ends_alike(tmp_path):
    table = universe(400)
    whole = train(table, 30).state.params

    class Killed(Exception):
        pass

    class Source(ArraySource):
        def __call__(self, step):
            if step == 17:
                raise Killed
            return super().__call__(step)

    network = make_network(CONFIG, table, rngs=nnx.Rngs(0))
    config = TrainConfig(
        30, OptimiserConfig(learning_rate=1e-2, warmup_steps=20, ema_decay=0.98, weight_decay=0.0),
        log_every=100, checkpoint_every=10, progress=False,
    )  # fmt: skip
    source = Source((table.values.astype("f4"), table.errors.astype("f4")), 128)
    loss = make_loss(table.names, TaskConfig(n_others=2))
    with pytest.raises(Killed):
        fit(network, loss, config, key=jax.random.key(1), source=source, directory=tmp_path)
    again = train(table, 30, tmp_path).state.params
    jax.tree.map(np.testing.assert_array_equal, whole, again)


def test_a_quantity_without_spread_is_named():
    table = universe(50)
    values = table.values.copy()
    values[:, 3] = 1.0
    with pytest.raises(InputError, match="quantity g: found no spread"):
        make_network(CONFIG, table._replace(values=values), rngs=nnx.Rngs(0))
