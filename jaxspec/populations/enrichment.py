"""One-zone chemical evolution: how the abundances of a well-mixed gas rise as its stars form and explode.

A gas reservoir forms stars at a rate that falls exponentially, loses gas in proportion to it, and is fed with
pristine gas so that it keeps its efficiency. Core-collapse supernovae enrich it at once, type Ia supernovae
after an exponential distribution of delays. `mass_fractions` is the analytic solution of Weinberg, Andrews &
Freudenburg (2017, ApJ 837, 183; "WAF17" below), written so that it has no singular points; `integrate` solves
the same equations numerically and is what the solution is tested against. Times are in Gyr.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

# Solar mass fractions of oxygen and iron on WAF17's scale.
SOLAR_O, SOLAR_FE = 0.0056, 0.0012
Number = Float[Any, "*_"] | float
# Nodes of a Gauss-Legendre rule on [0, 1], for the one integral of the solution.
NODES, WEIGHTS = (0.5 * (x + s) for x, s in zip(np.polynomial.legendre.leggauss(40), (1.0, 0.0), strict=True))


class OneZone(NamedTuple):
    """The history of one reservoir; the defaults are the fiducial model of WAF17.

    Attributes:
        tau_star: gas mass over star formation rate [Gyr].
        tau_sfh: e-folding time of the star formation rate [Gyr].
        eta: outflow over star formation rate.
        recycling: share of the mass of new stars that returns at once with its original composition.
        tau_ia: e-folding time of the delays of type Ia supernovae [Gyr].
        delay: shortest of these delays [Gyr].
    """

    tau_star: Number = 1.0
    tau_sfh: Number = 6.0
    eta: Number = 2.5
    recycling: Number = 0.4
    tau_ia: Number = 1.5
    delay: Number = 0.15

    @property
    def depletion_rate(self) -> Number:
        """Gas that stars and outflow take away, per gas mass and Gyr."""
        return (1.0 + self.eta - self.recycling) / self.tau_star


class Yields(NamedTuple):
    """Mass of an element that is newly made, per mass of stars formed: at once by core collapse, and in the
    end by type Ia supernovae."""

    core_collapse: Number
    type_ia: Number = 0.0


# WAF17, fiducial.
OXYGEN, IRON = Yields(0.015, 0.0), Yields(0.0012, 0.0017)


def mass_fraction(zone: OneZone, time: Number, yields: Yields) -> Float[Any, "*_"]:
    """Mass fraction of an element in the gas at `time` [Gyr] after star formation began.

    WAF17's solution for an exponential star formation history. Its two parts, core collapse and type Ia,
    divide by differences of rates; here they are integrals without a singular point, so values and
    gradients hold for any rates. All arguments broadcast.
    """
    time = jnp.asarray(time)
    fall, deplete, explode = 1.0 / zone.tau_sfh, zone.depletion_rate, 1.0 / zone.tau_ia
    prompt = time * _mean_decay((deplete - fall) * time)
    since = jnp.maximum(time - zone.delay, 0.0)
    x, z = (deplete - fall) * since, (explode - fall) * since
    # The double integral over the time of birth and of explosion, the inner one done exactly.
    rest = jnp.asarray(1.0 - NODES, time.dtype)
    inner = jnp.exp(-x[..., None] * NODES) * rest * _mean_decay(z[..., None] * rest)
    late = explode * jnp.exp(fall * zone.delay) * since**2 * (inner @ jnp.asarray(WEIGHTS, time.dtype))
    return (yields.core_collapse * prompt + yields.type_ia * late) / zone.tau_star


def _mean_decay(x: Float[Any, "*_"]) -> Float[Any, "*_"]:
    """The mean of exp(-x u) over u from 0 to 1: (1 - exp(-x)) / x."""
    small = jnp.abs(x) < 1e-2
    safe = jnp.where(small, 1.0, x)
    series = 1.0 - x / 2.0 * (1.0 - x / 3.0 * (1.0 - x / 4.0))
    return jnp.where(small, series, -jnp.expm1(-safe) / safe)


def track(zone: OneZone, time: Number) -> tuple[Float[Any, "*_"], Float[Any, "*_"]]:
    """[O/H] and [Fe/H] of the gas at `time` [Gyr]. Magnesium, which type Ia supernovae do not make either,
    follows oxygen."""
    oxygen, iron = (mass_fraction(zone, time, yields) for yields in (OXYGEN, IRON))
    floor = jnp.finfo(oxygen.dtype).tiny  # of gas without metals, at time 0
    return jnp.log10(jnp.maximum(oxygen, floor) / SOLAR_O), jnp.log10(jnp.maximum(iron, floor) / SOLAR_FE)


def integrate(
    zone: OneZone, time: Float[Array, " t"], yields: Yields, rtol: float = 1e-8
) -> Float[Array, " t"]:
    """Mass fraction at increasing `time` from a numerical solution of the equations themselves (WAF17):
    the masses of gas, of the element and of stars that will explode.

    Star formation has rate 1 at time 0. Runs in double precision only where JAX does.
    """

    zone, yields = jax.tree.map(jnp.asarray, (zone, yields))
    start = (jnp.zeros(()), jnp.zeros(()))
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(_rates),
        diffrax.Tsit5(),
        t0=0.0,
        t1=time[-1],
        dt0=1e-3,
        y0=start,
        args=(zone, yields),
        saveat=diffrax.SaveAt(ts=time),
        stepsize_controller=diffrax.ClipStepSizeController(
            diffrax.PIDController(rtol=rtol, atol=1e-3 * rtol), jump_ts=jnp.asarray([zone.delay])
        ),
        max_steps=20_000,
    )
    return solution.ys[0] / (zone.tau_star * jnp.exp(-time / zone.tau_sfh))


def _rates(t, state, args):
    """Rates of the mass of the element in the gas, and of stars that will explode."""
    zone, yields = args
    element, waiting = state
    formation = jnp.exp(-t / zone.tau_sfh)
    fraction = element / (zone.tau_star * formation)
    lagged = jnp.where(t > zone.delay, jnp.exp(-(t - zone.delay) / zone.tau_sfh), 0.0)
    exploding = waiting / zone.tau_ia
    made = yields.core_collapse * formation + yields.type_ia * exploding
    lost = (1.0 + zone.eta - zone.recycling) * formation * fraction
    return made - lost, lagged - exploding


def birth_times(zone: OneZone, uniform: Float[Any, " n"], end: float) -> Float[Any, " n"]:
    """Times of birth of stars of a history that ends at `end` [Gyr], from uniform numbers in [0, 1]."""
    return -zone.tau_sfh * jnp.log1p(uniform * jnp.expm1(-end / zone.tau_sfh))


__all__ = ["IRON", "OXYGEN", "OneZone", "Yields", "birth_times", "integrate", "mass_fraction", "track"]
