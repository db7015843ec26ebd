"""One-zone models against a numerical solution of the same equations, closed forms, and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxspec.populations.enrichment import (
    IRON,
    OXYGEN,
    OneZone,
    birth_times,
    integrate,
    mass_fraction,
    track,
)

TIME = np.linspace(0.05, 12.0, 40)
ZONES = (OneZone(), OneZone(0.5, 2.0, 3.0), OneZone(8.0, 3.0, 9.0), OneZone(1.0, 1.5, 2.5))


def test_the_analytic_solution_solves_the_equations(x64):
    for zone in ZONES:
        for yields in (OXYGEN, IRON):
            exact = np.log10(mass_fraction(zone, jnp.asarray(TIME), yields))
            numerical = np.log10(integrate(zone, jnp.asarray(TIME), yields))
            np.testing.assert_allclose(exact, numerical, atol=1e-5)


def test_closed_forms_of_the_paper(x64):
    """The paper's solution as printed, away from their singular points; and the equilibrium."""
    zone = OneZone()
    a, s, i = zone.depletion_rate, 1 / zone.tau_sfh, 1 / zone.tau_ia
    tau = 1 / (a - s)
    oxygen = OXYGEN.core_collapse * tau / zone.tau_star * (1 - np.exp(-TIME / tau))
    np.testing.assert_allclose(mass_fraction(zone, jnp.asarray(TIME), OXYGEN), oxygen, rtol=1e-10)
    since = np.maximum(TIME - zone.delay, 0.0)
    ia_sfh, dep_ia = 1 / (i - s), 1 / (a - i)
    height = IRON.type_ia * tau / zone.tau_star * ia_sfh / zone.tau_ia * np.exp(zone.delay * s)
    shape = 1 - np.exp(-since / tau) - dep_ia / tau * (np.exp(-since / ia_sfh) - np.exp(-since / tau))
    late = mass_fraction(zone, jnp.asarray(TIME), IRON._replace(core_collapse=0.0))
    np.testing.assert_allclose(late, height * shape, rtol=1e-8, atol=1e-15)
    assert abs(track(zone, 12.0)[1]) < 0.01  # their fiducial model ends at solar iron


def test_equal_time_scales_are_no_special_case(x64):
    """Where depletion, star formation and explosions have one rate, the printed solution divides by zero."""
    zone = OneZone(tau_star=3.1 * 1.5, tau_sfh=1.5, tau_ia=1.5)
    near = zone._replace(tau_sfh=1.5 * (1 + 1e-6), tau_ia=1.5 * (1 - 1e-6))
    for yields in (OXYGEN, IRON):
        at, by = (np.asarray(mass_fraction(z, jnp.asarray(TIME), yields)) for z in (zone, near))
        assert np.isfinite(at).all()
        np.testing.assert_allclose(at, by, rtol=1e-4)
    gradient = jax.grad(lambda tau: mass_fraction(zone._replace(tau_sfh=tau), jnp.asarray(5.0), IRON))(1.5)
    assert np.isfinite(gradient) and gradient != 0.0


def test_gradients_by_every_parameter(x64):
    def iron(parameters):
        return track(OneZone(*parameters), jnp.asarray(5.0))[1]

    values = jnp.array([float(x) for x in OneZone()])
    gradient, step = jax.grad(iron)(values), 1e-5
    shifts = step * jnp.eye(len(values))
    differences = jax.vmap(lambda shift: iron(values + shift) - iron(values - shift))(shifts) / (2 * step)
    np.testing.assert_allclose(gradient, differences, rtol=1e-6)


def test_the_plateau_and_the_knee():
    """Before the first type Ia supernova [O/Fe] is that of core collapse; later it falls."""
    oxygen, iron = track(OneZone(), jnp.array([0.05, 0.14, 1.0, 5.0]))
    ratio = np.asarray(oxygen - iron)
    np.testing.assert_allclose(ratio[:2], np.log10(0.015 / 0.0012 * 0.0012 / 0.0056), atol=1e-5)
    assert (np.diff(ratio[1:]) < -0.05).all()


def test_times_of_birth_follow_the_star_formation():
    u = (np.arange(20000) + 0.5) / 20000
    time = np.asarray(birth_times(OneZone(tau_sfh=2.0), jnp.asarray(u), 4.0))
    expected = 1 - np.exp(-np.array([1.0, 2.0, 3.0]) / 2.0)
    share = [(time < t).mean() for t in (1.0, 2.0, 3.0)]
    np.testing.assert_allclose(share, expected / (1 - np.exp(-2.0)), atol=1e-3)


@pytest.mark.slow
def test_vice_gives_the_same_tracks(tmp_path):
    vice = pytest.importorskip("vice")
    zone = OneZone()
    vice.yields.ccsne.settings.update({"o": OXYGEN.core_collapse, "fe": IRON.core_collapse})
    vice.yields.sneia.settings.update({"o": 0.0, "fe": IRON.type_ia})
    vice.yields.agb.settings.update({"o": lambda m, z: 0.0, "fe": lambda m, z: 0.0})
    model = vice.singlezone(
        name=str(tmp_path / "fiducial"),
        func=lambda t: np.exp(-t / zone.tau_sfh),
        mode="sfr",
        elements=("fe", "o"),
        eta=zone.eta,
        tau_star=zone.tau_star,
        recycling=zone.recycling,
        delay=zone.delay,
        tau_ia=zone.tau_ia,
        RIa="exp",
        dt=0.005,
    )
    time = np.linspace(0, 12, 2401)
    model.run(time, overwrite=True)
    history = vice.history(str(tmp_path / "fiducial"))
    t = np.array(history["time"])
    late = t > 0.3
    for element, yields in (("o", OXYGEN), ("fe", IRON)):
        mine = np.log10(np.asarray(mass_fraction(zone, jnp.asarray(t[late]), yields)))
        theirs = np.log10(np.array(history[f"z({element})"])[late])
        assert np.abs(mine - theirs).max() < 0.03
