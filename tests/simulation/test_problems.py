"""Each problem is what it says: the truth that is kept with the spectra is in them."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxspec.errors import InputError
from jaxspec.simulation.faults import CALCIUM_TRIPLET
from jaxspec.simulation.nuisances import PURE
from jaxspec.simulation.problems import DWARFS, PROBLEMS, TRAINING, shifted, simulate_problems
from jaxspec.simulation.simulator import Simulator


@pytest.fixture(scope="module")
def quiet(toy):
    """No noise to speak of, no continuum, nothing masked."""
    config = dataclasses.replace(
        PURE, continuum_scatter=0.0, slope_probability=0.0, scattered_light=0.0, cosmics=0.0, bad_pixels=0.0,
        gap_probability=0.0, truncation_probability=0.0, velocity_error=0.0, velocity_tail_error=0.0,
    )  # fmt: skip
    return Simulator(toy, config=config)


@pytest.fixture(scope="module")
def made(quiet):
    return {cause: simulate_problems(cause, jax.random.key(2), quiet, 6, (1e5, 2e5)) for cause in PROBLEMS}


def test_all_have_the_truth(made, toy):
    for cause, stars in made.items():
        assert stars.flux.shape == stars.ivar.shape == (6, toy.instrument.n_pixels)
        assert np.isfinite(stars.flux).all() and (stars.ivar >= 0.0).all()
        assert stars.labels.shape == (6, 9) and stars.cause == cause
        assert stars.prior == (DWARFS if cause == "wrong prior" else TRAINING)
        assert stars.fittable == (cause != "hot star")
    assert (toy.label_set.column(made["wrong prior"].labels, "logg") < 3.2).all()


def test_causes_do_what_they_say(made, toy):
    w, ordinary = toy.instrument.wavelength, made["ordinary"].flux
    light = made["scattered light"]
    np.testing.assert_allclose(light.flux, (ordinary + 0.05) / 1.05, atol=2e-3)
    bright = made["emission"]
    near = np.abs(w - CALCIUM_TRIPLET[1]).argmin()
    np.testing.assert_allclose(bright.flux[:, near] - ordinary[:, near], bright.facts["height"], rtol=0.05)
    ripple = made["fringes"].flux / ordinary - 1.0
    for row, arm, height in zip(
        ripple, made["fringes"].facts["arm"], made["fringes"].facts["height"], strict=True
    ):
        here, there = (list(toy.instrument.slices.values())[int(i)] for i in (arm, 1 - arm))
        assert np.abs(row[here]).max() == pytest.approx(height, rel=0.1) and np.abs(row[there]).max() < 1e-3
    moved = made["wrong velocity"]
    w_red = w[toy.instrument.slices["red"]]
    for i in range(6):
        back = shifted(
            toy.instrument, moved.flux[i : i + 1].astype(float), -moved.facts["velocity"][i : i + 1]
        )
        row = back[0][toy.instrument.slices["red"]]
        inside = np.abs(w_red - 8525.0) < 12.0
        np.testing.assert_allclose(row[inside], ordinary[i][toy.instrument.slices["red"]][inside], atol=0.01)
        assert (moved.ivar[i] == 0.0).any()  # what would come from outside of the arm
    assert (np.abs(made["wrong continuum"].flux / ordinary - 1.0).std(axis=1) > 0.005).all()


def test_mistakes_are_named(quiet):
    with pytest.raises(InputError, match="one of ordinary"):
        simulate_problems("gremlins", jax.random.key(0), quiet, 2)
