"""Nuisances: the effects of a real spectrograph, a real star and an imperfect model, stated once.

`NuisanceConfig` holds the distributions that simulations draw from and exact likelihoods use as priors.
Fits and bounds that want a Gaussian instead take it from `FITTED` and `TYPICAL`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from jaxspec.errors import InputError
from jaxspec.physics import turbulence
from jaxspec.physics.forward import Nuisances
from jaxspec.settings import PRESETS

Calibration = Callable[[Float[Array, "*n"], Float[Array, "*n"], Float[Array, "*n"]], Float[Array, "*n"]]
Stellar = tuple[Float[Array, "*n"], ...]

# Limits of the resolving power, in units of the nominal one.
RESOLUTION_RANGE = (0.7, 1.3)


@dataclass(frozen=True)
class NuisanceConfig:
    """Distributions of everything but the labels. Widths are standard deviations unless they say otherwise.

    The defaults describe GIRAFFE spectra of the Gaia-ESO survey (Gilmore et al. 2022, A&A 666, A120):
    velocities good to 0.3-0.7 km/s (Jackson et al. 2015, A&A 580, A75), R stable to about 5 %, S/N per pixel
    from 5 to 300; vmic scatters by about 0.2 km/s about its calibration (Smiljanic et al. 2014, A&A 570,
    A122), vmac by about 1 km/s (Doyle et al. 2014, MNRAS 444, 3592), and most FGK stars rotate at less than
    10 km/s, with a tail among the F stars (Glebocki & Gnacinski 2005).

    Attributes:
        vmic_scatter, vmic_range: scatter about the calibration and hard limits [km/s].
        vmac_scatter, vmac_range: the same for the macroturbulence [km/s].
        vsini_scale: scale [km/s] of the exponential distribution of slow rotators.
        vsini_fast, vsini_max: fraction of stars uniform between 0 and `vsini_max` [km/s], the hard limit of
            all.
        velocity_error: residual radial velocity [km/s] after the shift to rest.
        velocity_tail, velocity_tail_error: fraction of stars with the wider velocity error [km/s].
        resolution_mean, resolution_scatter: of the resolving power in units of the nominal one; it is never
            outside 0.7 to 1.3.
        snr_range: range of the log-uniform signal-to-noise per pixel.
        snr_arm_scatter: scatter of ln S/N between the arms of one star.
        snr_shape: amplitude of the smooth change of ln sigma along an arm.
        ivar_misstated: scatter of ln sigma by which the stated errors of an arm are wrong.
        only_arm: probability, arm by arm, that this arm alone was observed; ignored for an instrument of one
            arm.
        bad_pixels: largest fraction of masked single pixels.
        gap_probability, gap_length: probability of each of two gaps per arm, and their greatest length as a
            fraction of the arm.
        truncation_probability, truncation_length: the same for the two ends of an arm.
        cosmics, cosmic_masked: mean number of cosmic rays per arm, and the fraction of them that is masked.
        continuum_scatter: scatter of each Chebyshev coefficient (degrees 1 to 5) of the multiplicative
            residual continuum.
        slope_probability, slope: fraction of arms with an additional strong linear slope, and the scatter of
            that slope.
        scattered_light: largest additive light, as a fraction of the continuum.
        line_error: largest standard deviation of the relative error of the line depth (oscillator strengths,
            non-LTE); each star draws its own amplitude between 0 and this. 0 makes the simulated spectra
            exactly as good as the forward model.
        line_error_length: correlation length [A] of that error: one line.
        core_error: largest standard deviation of the smooth relative error of strong lines (weighted by
            depth; non-LTE cores, wings).
        core_error_length: its correlation length [A].
        exact_model: fraction of stars without any of these errors, from which a network learns to use the
            model as far as the spectrum shows it to be right.
        missing_lines: largest mean depth of lines that the list lacks, which fall on 3 % of the resolution
            elements.
    """

    vmic_scatter: float = 0.2
    vmic_range: tuple[float, float] = (0.3, 3.5)
    vmac_scatter: float = 1.0
    vmac_range: tuple[float, float] = (0.0, 12.0)
    vsini_scale: float = 2.5
    vsini_fast: float = 0.12
    vsini_max: float = 30.0
    velocity_error: float = 0.5
    velocity_tail: float = 0.1
    velocity_tail_error: float = 2.0
    resolution_mean: float = 1.0
    resolution_scatter: float = 0.05
    snr_range: tuple[float, float] = (5.0, 300.0)
    snr_arm_scatter: float = 0.2
    snr_shape: float = 0.25
    ivar_misstated: float = 0.1
    only_arm: tuple[float, ...] = (0.3, 0.15)
    bad_pixels: float = 0.02
    gap_probability: float = 0.1
    gap_length: float = 0.02
    truncation_probability: float = 0.15
    truncation_length: float = 0.1
    cosmics: float = 1.5
    cosmic_masked: float = 0.6
    continuum_scatter: float = 0.02
    slope_probability: float = 0.2
    slope: float = 0.15
    scattered_light: float = 0.02
    line_error: float = 0.0
    line_error_length: float = 0.35
    core_error: float = 0.0
    core_error_length: float = 5.0
    missing_lines: float = 0.0
    exact_model: float = 0.0

    def __post_init__(self):
        for name in ("vmic_range", "vmac_range", "snr_range", "only_arm"):
            object.__setattr__(self, name, tuple(float(v) for v in getattr(self, name)))
        for field in dataclasses.fields(self):
            values = getattr(self, field.name)
            if min(values if isinstance(values, tuple) else (values,), default=0.0) < 0.0:
                raise InputError(f"nuisances.{field.name}", f"{values}", "no negative number", "mend it")
        if sum(self.only_arm) > 1.0:
            raise InputError(
                "nuisances.only_arm",
                f"{self.only_arm}",
                "probabilities with a sum of at most 1",
                "lower them",
            )
        if not 0.0 < self.snr_range[0] <= self.snr_range[1]:
            raise InputError("nuisances.snr_range", f"{self.snr_range}", "0 < low <= high", "mend it")


PURE = NuisanceConfig()
"""Simulations on which the forward model is exactly right: what accuracy and calibration are measured on."""

ROBUST = NuisanceConfig(
    line_error=0.12,
    core_error=0.1,
    missing_lines=0.02,
    continuum_scatter=0.03,
    resolution_mean=0.95,
    resolution_scatter=0.07,
)
"""For real stars: line strengths wrong by up to 12 % line by line, so that no single line is trusted.

The amplitude follows from benchmark stars: with calibrated oscillator strengths their spectra in HR10 are
missed by 0.5-1 % of the continuum, 5-10 % of the mean line depth; in HR21, where no line was calibrated, by
more. The resolving power covers 0.80 to 1.10 of the nominal one:
HR10 spectra at hand have R near 18,000 instead of 21,500."""

CONFIGS = {"pure": PURE, "robust": ROBUST}
PRESETS[NuisanceConfig] = CONFIGS


class Fitted(NamedTuple):
    """How a nuisance is fitted: mean and standard deviation of its Gaussian prior, and its limits. The mean
    of vmic and of vmac is relative to the calibration's value for the star."""

    mean: float
    sigma: float
    low: float
    high: float


# Wider than `ROBUST` where a real star may be further away than any that is simulated: a velocity that was
# measured badly, a fast rotator. Velocity, vsini, vmic and vmac in km/s, resolving power in units of the
# nominal one, scattered light as a fraction of the continuum (with moments of the uniform distribution).
FITTED = {
    "velocity": Fitted(0.0, 3.0, -15.0, 15.0),
    "vsini": Fitted(4.0, 10.0, 0.3, 60.0),
    "vmic": Fitted(0.0, 0.3, 0.3, 4.0),
    "resolution": Fitted(ROBUST.resolution_mean, ROBUST.resolution_scatter, 0.75, 1.25),
    "vmac": Fitted(0.0, ROBUST.vmac_scatter, *ROBUST.vmac_range),
    "scattered_light": Fitted(
        0.5 * ROBUST.scattered_light,
        ROBUST.scattered_light / math.sqrt(12.0),
        0.0,
        3.0 * ROBUST.scattered_light,
    ),
}

TYPICAL = Nuisances(
    vmic=PURE.vmic_scatter,
    vmac=PURE.vmac_scatter,
    vsini=4.0,
    velocity=0.6,
    resolution=PURE.resolution_scatter,
)
"""Rounded standard deviations of the nuisances of most stars of `PURE`, without its fast rotators and its
tail of velocities: what a bound takes as known beforehand."""

TYPICAL_LIGHT = 0.006
"""Standard deviation of the scattered light of `PURE`, rounded, as a fraction of the continuum."""


def expected_nuisances(stellar: Stellar, config: NuisanceConfig) -> Nuisances:
    """What nuisances scatter about in stars of given teff [K], logg and fe_h: vmic and vmac of the
    calibrations, no rotation, at rest, the mean resolving power. Each field has the shape of teff."""
    vmic = turbulence.vmic_calibration(*stellar)
    zero = jnp.zeros_like(vmic)
    return Nuisances(vmic, turbulence.vmac_calibration(*stellar), zero, zero, zero + config.resolution_mean)


def draw_nuisances(
    key: PRNGKeyArray,
    stellar: Stellar,
    config: NuisanceConfig,
    vmic_calibration: Calibration,
    vmac_calibration: Calibration,
) -> Nuisances:
    """Draw the broadening and velocity of `n` stars of given teff [K], logg and fe_h [dex], each `[n]` (see
    `LabelSet.stellar`); each field `[n]`."""
    n = stellar[0].shape[0]
    keys = jax.random.split(key, 7)
    vmic = vmic_calibration(*stellar) + config.vmic_scatter * jax.random.normal(keys[0], (n,))
    vmac = vmac_calibration(*stellar) + config.vmac_scatter * jax.random.normal(keys[1], (n,))
    slow = config.vsini_scale * jax.random.exponential(keys[2], (n,))
    is_fast, fast = jax.random.uniform(keys[3], (2, n))
    vsini = jnp.where(is_fast < config.vsini_fast, fast * config.vsini_max, slow)
    in_tail = jax.random.uniform(keys[4], (n,)) < config.velocity_tail
    velocity = jnp.where(in_tail, config.velocity_tail_error, config.velocity_error) * jax.random.normal(
        keys[5], (n,)
    )
    resolution = config.resolution_mean + config.resolution_scatter * jax.random.normal(keys[6], (n,))
    return Nuisances(
        vmic=jnp.clip(vmic, *config.vmic_range),
        vmac=jnp.clip(vmac, *config.vmac_range),
        vsini=jnp.clip(vsini, 0.0, config.vsini_max),
        velocity=velocity,
        resolution=jnp.clip(resolution, *RESOLUTION_RANGE),
    )
