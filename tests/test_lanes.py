"""Nothing is promoted by accident: the core under strict dtype promotion, and in double precision.

Both are decided when a program is traced, so that nothing but the last test compiles. Rank promotion is left
allowed: broadcasting a spectrum's pixels over stars is what most lines do, and jaxtyping checks the ranks at
every function's door.
"""

from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.extend import core

from jaxspec.continuum import normalise
from jaxspec.fitting.likelihood import LikelihoodConfig, log_density, observe
from jaxspec.fitting.modes import Fit
from jaxspec.flows import FlowConfig, make_flow
from jaxspec.labels import NINE_LABELS
from jaxspec.networks import EncoderConfig, make_encoder
from jaxspec.physics.forward import Nuisances
from jaxspec.simulation.nuisances import ROBUST
from jaxspec.simulation.prior import StellarPrior
from jaxspec.simulation.simulator import Simulator
from tests.toy import TOY_INSTRUMENT, ToyForwardModel

N_PIXELS = TOY_INSTRUMENT.n_pixels
CONFIG = LikelihoodConfig()
ENCODER = dict(
    n_context=8,
    bin_pixels=4,
    projection_width=16,
    stem_channels=4,
    n_segments=4,
    head_width=16,
    head_blocks=1,
    token_width=8,
    token_blocks=1,
)
# An abstract argument: the program is traced and never run.
Case = tuple[Callable, tuple[tuple[int, ...], ...]]


def flow(coupling: str, mixing: str = "permutation"):
    config = FlowConfig(n_layers=2, width=16, n_bins=4, mixing=mixing, coupling=coupling)
    return make_flow(config, n_dim=3, n_context=4, rngs=nnx.Rngs(0))


def encoder(kind: str):
    return make_encoder(EncoderConfig(kind=kind, **ENCODER), TOY_INSTRUMENT.wavelength, rngs=nnx.Rngs(0))


def at(module, dtype):
    """A network with its weights in another precision."""
    graph, state = nnx.split(module)
    state = jax.tree.map(lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, state)
    return nnx.merge(graph, state)


def of_toy() -> dict[str, Case]:
    toy, key = ToyForwardModel(), jax.random.key(0)

    def fitted(start, flux, ivar):
        fit = Fit(toy, start, flux, ivar, CONFIG)
        state = fit.step((fit.centre, fit.continuum(fit.centre)))
        return state, fit.loss(*state), fit.peak(state[0], fit.system(*state))

    def density(u, start, flux, ivar):
        return log_density(toy, StellarPrior(), CONFIG, u, start, observe(flux, flux, ivar, toy, CONFIG))

    pixels = (N_PIXELS,)
    return {
        "toy": (lambda labels, n: toy(labels, Nuisances(*n)), ((9,), (5,))),
        "to labels": (lambda z: (NINE_LABELS.to_labels(z), NINE_LABELS.log_det(z)), ((4, 9),)),
        "to unconstrained": (NINE_LABELS.to_unconstrained, ((4, 9),)),
        "prior": (StellarPrior().log_prob, ((9,),)),
        "prior draws": (lambda: StellarPrior().sample(key, 8), ()),
        "simulate": (lambda: Simulator(toy, config=ROBUST).simulate(key, 4), ()),
        "normalise": (lambda f, v: normalise(f, v, TOY_INSTRUMENT), ((3, N_PIXELS), (3, N_PIXELS))),
        "fit": (fitted, ((9,), pixels, pixels)),
        "density": (density, ((14,), (9,), pixels, pixels)),
    }


def of_networks(dtype=jnp.float32) -> dict[str, Case]:
    key, cases = jax.random.key(0), {}
    kinds = [
        ("affine", "lu"),
        ("autoregressive", "permutation"),
        ("matching", "permutation"),
        ("spline", "lu"),
    ]
    for coupling, mixing in kinds:
        one = at(flow(coupling, mixing), dtype)
        cases[f"{coupling} log_prob"] = one.log_prob, ((5, 3), (5, 4))
        cases[f"{coupling} draws"] = lambda c, one=one: one.sample_and_log_prob(key, c, 6), ((5, 4),)
        cases[f"{coupling} loss"] = lambda x, c, one=one: one.loss(key, x, c), ((5, 3), (5, 4))
    for kind in ("residual", "transformer", "hybrid"):
        one = at(encoder(kind), dtype)
        cases[kind] = lambda f, v, one=one: one(f, v, None), ((3, N_PIXELS), (3, N_PIXELS))
    return cases


def trace(case: Case, dtype):
    function, shapes = case
    return jax.make_jaxpr(function)(*(jax.ShapeDtypeStruct(shape, dtype) for shape in shapes))


# Not ours: bins of Distrax's spline are found with integers and floats together.
NOT_STRICT = ("spline",)
# Not ours: JAX's attention takes its softmax in float32 whatever it is given.
NOT_DOUBLE = ("transformer", "hybrid")


def test_strict_promotion():
    for name, case in (of_toy() | of_networks()).items():
        if not name.startswith(NOT_STRICT):
            with jax.numpy_dtype_promotion("strict"):
                trace(case, jnp.float32)


def test_the_strict_lane_sees_a_promotion():
    with jax.numpy_dtype_promotion("strict"), pytest.raises(Exception, match="dtype promotion"):
        trace((lambda x: x * jnp.arange(3), ((3,),)), jnp.float32)


def equations(jaxpr) -> Iterator:
    """All of a program, functions it calls included."""
    for equation in jaxpr.eqns:
        yield equation
        for value in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda x: isinstance(x, core.Jaxpr | core.ClosedJaxpr)
        ):
            if isinstance(value, core.ClosedJaxpr):
                yield from equations(value.jaxpr)
            elif isinstance(value, core.Jaxpr):
                yield from equations(value)


def single(jaxpr) -> list[str]:
    """Operations that make float32 of other things; reading a float32 constant is none."""
    return [
        str(equation)
        for equation in equations(jaxpr)
        if equation.primitive.name
        not in ("jit", "pjit", "custom_jvp_call", "custom_vjp_call", "while", "scan", "cond")
        for out in equation.outvars
        if getattr(out.aval, "dtype", None) == jnp.float32
        and any(getattr(v.aval, "dtype", None) == jnp.float64 for v in equation.invars)
    ]


def test_double_precision_stays_double(x64):
    for name, case in (of_toy() | of_networks(jnp.float64)).items():
        program = trace(case, jnp.float64)
        found = {str(v.dtype) for v in program.out_avals if jnp.issubdtype(v.dtype, jnp.floating)}
        assert found == {"float64"}, name
        if name not in NOT_DOUBLE:
            assert single(program.jaxpr) == [], name


def test_a_float32_in_between_is_seen(x64):
    program = trace((lambda x: jnp.exp(x.astype(jnp.float32)).astype(jnp.float64), ((3,),)), jnp.float64)
    assert len(single(program.jaxpr)) == 1


def test_both_precisions_agree(toy, rng):
    """The likelihood of a star, the density of a flow and an encoder's features, in float32 and float64."""
    start = np.array([5600.0, 4.3] + 7 * [-0.1])
    usual = Nuisances(1.2, 3.0, 3.0, 0.2, 1.0)
    flux = np.asarray(toy(jnp.asarray(start), usual)) + rng.normal(size=N_PIXELS) / 100.0
    ivar = np.where(rng.random(N_PIXELS) < 0.1, 0.0, 100.0**2)
    u = np.append(rng.normal(0.0, 0.5, 9), [0.1, -0.2, 1.0, 0.3, 0.1])
    x, context = rng.normal(size=(6, 3)), rng.normal(size=(6, 4))
    affine, residual = flow("affine", "lu"), encoder("residual")
    found = []
    for dtype in (np.float32, np.float64):
        with jax.enable_x64(dtype == np.float64):
            f, v, s, p, y, c = (jnp.asarray(a, dtype) for a in (flux, ivar, start, u, x, context))
            density = jax.jit(
                lambda u, s, f, v: log_density(
                    toy, StellarPrior(), CONFIG, u, s, observe(toy(s, usual), f, v, toy, CONFIG)
                )
            )(p, s, f, v)
            found.append(
                (
                    float(density),
                    np.asarray(at(affine, dtype).log_prob(y, c)),
                    np.asarray(at(residual, dtype)(f[None], v[None], None)),
                )
            )
    (density, log_prob, features), (density_64, log_prob_64, features_64) = found
    # What the expansion about the best fit is for: a log-likelihood of a thousand pixels to a hundredth.
    assert log_prob_64.dtype == features_64.dtype == np.float64
    assert abs(density - density_64) < 0.01
    np.testing.assert_allclose(log_prob, log_prob_64, atol=2e-5)
    np.testing.assert_allclose(features, features_64, atol=2e-4)
