"""Emulator and forward model: a made-up network whose spectra are known in closed form, and the shipped
one."""

import json
from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d
from scipy.special import erf

from jaxspec.errors import InputError
from jaxspec.instruments import FWHM_PER_SIGMA, SPEED_OF_LIGHT, Arm, Instrument, get_instrument
from jaxspec.labels import NINE_LABELS
from jaxspec.physics.broadening import VelocityGrid
from jaxspec.physics.emulator import Emulator, relative_inputs
from jaxspec.physics.forward import SHIPPED, ForwardModel, Nuisances, forward_model, load_forward_model
from jaxspec.spectra import air_to_vacuum

GRIDS = (VelocityGrid(5390.0, 2.0, 1500), VelocityGrid(8490.0, 2.0, 1800))
BASE_SIGMA = 3.0
LABELS = jnp.array([5200.0, 3.1, -0.4, -0.2, -0.1, -0.3, -0.45, -0.2, 0.0], jnp.float32)
NARROW = Instrument(
    "narrow", (Arm("a", 5400.0, 5430.0, 0.05, 21_500.0), Arm("b", 8510.0, 8560.0, 0.05, 18_000.0))
)
SIGMA, CENTRES = 6.0, (5415.0, 8535.0)  # km/s and A: one Gaussian line on each grid


def nuisances(vmic=1.2, vmac=0.0, vsini=0.0, velocity=0.0, resolution=1.0):
    return Nuisances(*(jnp.float32(x) for x in (vmic, vmac, vsini, velocity, resolution)))


def made_up_emulator(basis_size=0.0, seed=0):
    """A network of random weights about a mean spectrum of one Gaussian line on each grid."""
    rng = np.random.default_rng(seed)

    def draw(*shape, size=1.0):
        return jnp.asarray(size * rng.normal(size=shape), jnp.float32)

    mean = np.concatenate([
        1 - 0.4 * np.exp(-0.5 * (np.log(g.wavelength / c) * SPEED_OF_LIGHT / SIGMA) ** 2)
        for g, c in zip(GRIDS, CENTRES, strict=True)
    ])  # fmt: skip
    return Emulator(
        layers=[(draw(10, 16), draw(16)), (draw(16, 6), draw(6))],
        basis=draw(6, mean.size, size=basis_size) if basis_size else jnp.zeros((6, mean.size), jnp.float32),
        mean=jnp.asarray(mean, jnp.float32),
        centre=jnp.array([5500.0, 2.75, -1.0, 0, 0, 0, 0, 0, 0, 1.5], jnp.float32),
        scale=jnp.array([1500.0, 2.25, 1.5, 1, 1, 1, 1, 1, 1, 1.0], jnp.float32),
        grids=GRIDS,
        base_sigma=BASE_SIGMA,
        label_set=NINE_LABELS,
        summary=json.dumps({"mean_absolute_error": 0.001}),
    )


def test_inputs_are_relative_to_iron():
    inputs = relative_inputs(LABELS, jnp.float32(1.2), NINE_LABELS)
    np.testing.assert_allclose(
        inputs, [5200.0, 3.1, -0.4, 0.2, 0.3, 0.1, -0.05, 0.2, 0.4, 1.2], rtol=1e-6, atol=1e-6
    )


def test_emulator_is_mean_plus_coefficients_times_basis():
    emulator = made_up_emulator(0.1)
    expected = np.asarray(emulator.mean) + np.asarray(
        emulator.coefficients(LABELS, jnp.float32(1.2))
    ) @ np.asarray(emulator.basis)
    np.testing.assert_allclose(emulator(LABELS, jnp.float32(1.2)), expected, atol=1e-5)


def test_saved_emulator_comes_back(tmp_path):
    """The basis is kept in half precision: the spectrum agrees to that."""
    emulator = made_up_emulator(0.01)
    emulator.save(tmp_path / "emulator")
    back = Emulator.load(tmp_path / "emulator")
    assert back.grids == emulator.grids and back.base_sigma == emulator.base_sigma
    assert back.approximation == "LTE"
    assert back.label_set == emulator.label_set and json.loads(back.summary) == json.loads(emulator.summary)
    coefficients = emulator.coefficients(LABELS, jnp.float32(1.2))
    np.testing.assert_array_equal(back.coefficients(LABELS, jnp.float32(1.2)), coefficients)
    size = np.abs(np.asarray(coefficients)) @ np.abs(np.asarray(emulator.basis)).max(axis=1)
    np.testing.assert_allclose(
        back(LABELS, jnp.float32(1.2)), emulator(LABELS, jnp.float32(1.2)), atol=float(size) * 2**-11 + 1e-6
    )


def test_an_emulator_in_one_file_is_still_read(tmp_path):
    """As `experiments.emulator` wrote it before there were folders."""
    folder = made_up_emulator(0.01).save(tmp_path / "emulator")
    config = json.loads((folder / "config.json").read_text())
    header = {**config["settings"], "summary": config["provenance"]["summary"]}
    del header["approximation"]  # older still
    with np.load(folder / "arrays.npz") as arrays:
        np.savez_compressed(tmp_path / "emulator.npz", header=json.dumps(header), **arrays)
    one, other = Emulator.load(folder), Emulator.load(tmp_path / "emulator.npz")
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)
    assert jax.tree.structure(one) == jax.tree.structure(other)


def test_missing_and_foreign_weights_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"none\.npz.*found no such file"):
        Emulator.load(tmp_path / "none.npz")
    (tmp_path / "bytes.npz").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"bytes\.npz: found no emulator.*experiments\.emulator"):
        Emulator.load(tmp_path / "bytes.npz")
    foreign = replace(made_up_emulator(0.01), label_set=NINE_LABELS.select(["teff", "logg", "fe_h"]))
    foreign.save(tmp_path / "foreign")
    with pytest.raises(InputError, match=r"labels.*teff.*fe_h.*experiments\.emulator"):
        Emulator.load(tmp_path / "foreign")


def test_arm_outside_the_emulator_is_refused():
    far = Instrument("far", (Arm("c", 6000.0, 6050.0, 0.05, 20_000.0),))
    with pytest.raises(
        InputError, match=r"arm c of far: found 6000.0-6050.0 A; expected within 5390.0-5444.2, 8490.0"
    ):
        ForwardModel.create(made_up_emulator(), far)


def test_arm_sharper_than_the_emulator_is_refused():
    sharp = Instrument("sharp", (Arm("d", 5400.0, 5430.0, 0.02, 80_000.0),))
    with pytest.raises(InputError, match=r"arm d of sharp: found resolving power 80000; expected at most 42"):
        ForwardModel.create(made_up_emulator(), sharp)


def expected_line(arm, centre, *, velocity=0.0, resolution=1.0):
    """The Gaussian line broadened by what is left of the line-spread function, averaged over a pixel, and
    moved."""
    middle = 0.5 * (arm.low + arm.high)
    lsf = (SPEED_OF_LIGHT / (FWHM_PER_SIGMA * arm.resolving_power * resolution)) ** 2
    sigma = np.sqrt(SIGMA**2 + lsf - BASE_SIGMA**2)
    x = np.log(arm.wavelength / centre) * SPEED_OF_LIGHT - velocity
    half = 0.5 * arm.step / middle * SPEED_OF_LIGHT
    mean = (
        sigma
        * np.sqrt(np.pi / 2)
        * (erf((x + half) / sigma / 2**0.5) - erf((x - half) / sigma / 2**0.5))
        / (2 * half)
    )
    return 1 - 0.4 * SIGMA / sigma * mean


@pytest.mark.parametrize(("velocity", "resolution"), [(0.0, 1.0), (35.0, 1.0), (-7.77, 0.9), (0.4, 1.1)])
def test_a_line_is_seen_where_and_as_wide_as_it_must_be(velocity, resolution):
    forward = ForwardModel.create(made_up_emulator(), NARROW)
    flux = eqx.filter_jit(forward)(LABELS, nuisances(velocity=velocity, resolution=resolution))
    expected = [
        expected_line(arm, centre, velocity=velocity, resolution=resolution)
        for arm, centre in zip(NARROW.arms, CENTRES, strict=True)
    ]
    np.testing.assert_allclose(flux, np.concatenate(expected), atol=5e-4)


def test_vacuum_arm_sees_the_same_line_at_its_vacuum_wavelength():
    low, high = air_to_vacuum(np.array([5400.0, 5430.0]))
    vacuum = Instrument("v", (Arm("a", float(low), float(high), 0.05, 21_500.0, medium="vacuum"),))
    flux = np.asarray(ForwardModel.create(made_up_emulator(), vacuum)(LABELS, nuisances()))
    assert vacuum.wavelength[np.argmin(flux)] == pytest.approx(
        float(air_to_vacuum(np.array([5415.0]))[0]), abs=0.03
    )


def test_broadening_widens_and_keeps_the_equivalent_width():
    forward = eqx.filter_jit(ForwardModel.create(made_up_emulator(), NARROW))
    sharp = np.asarray(forward(LABELS, nuisances()))
    wide = np.asarray(forward(LABELS, nuisances(vmac=5.0, vsini=10.0)))
    for part in NARROW.slices.values():
        assert np.sum(1 - wide[part]) == pytest.approx(np.sum(1 - sharp[part]), rel=2e-3)
        assert np.min(wide[part]) > np.min(sharp[part]) + 0.02


def test_batches_are_stars_one_by_one():
    forward = ForwardModel.create(made_up_emulator(0.01), NARROW)
    stars = jnp.stack([LABELS, LABELS.at[0].add(300.0).at[4].add(0.2)])
    both = Nuisances(
        *(jnp.stack(x) for x in zip(nuisances(), nuisances(1.5, 2.0, 3.0, 20.0, 0.95), strict=True))
    )
    together = jax.jit(jax.vmap(forward))(stars, both)
    one = eqx.filter_jit(forward)
    for i in range(2):
        alone = one(stars[i], jax.tree.map(lambda x, i=i: x[i], both))
        np.testing.assert_allclose(together[i], alone, atol=2e-5)


def test_derivative_by_velocity_is_that_of_the_moved_line():
    forward = ForwardModel.create(made_up_emulator(), NARROW)
    by_nuisances = jax.jit(jax.jacfwd(lambda n: forward(LABELS, n)))
    slope = by_nuisances(nuisances(velocity=3.0)).velocity
    expected = [
        (expected_line(arm, c, velocity=3.05) - expected_line(arm, c, velocity=2.95)) / 0.1
        for arm, c in zip(NARROW.arms, CENTRES, strict=True)
    ]
    np.testing.assert_allclose(slope, np.concatenate(expected), atol=2e-4)
    # At rest and unbroadened, where square roots and ratios 0 / 0 would show.
    by_all = by_nuisances(nuisances())
    assert all(np.isfinite(x).all() for x in by_all)
    np.testing.assert_allclose(by_all.vsini, 0.0, atol=1e-6)  # broadening is of second order in the speed
    np.testing.assert_allclose(by_all.vmac, 0.0, atol=1e-6)


@pytest.fixture(scope="module")
def giraffe():
    return load_forward_model(get_instrument("giraffe"))


def test_shipped_emulator_states_its_measured_error(giraffe):
    """Mean absolute error 0.3 % of the continuum over the range and 1.5 % at the 99th percentile, at most."""
    summary = json.loads(giraffe.emulator.summary)
    assert summary["mean_absolute_error"] <= 0.003
    assert summary["percentile_99"] <= 0.015
    assert summary["n_stars"] >= 100


def test_giraffe_spectra_agree_with_the_reference_code(giraffe, reference):
    """Emulator, broadening and pixels together, against reference spectra broadened and binned here: 1.5 %
    rms in the median star."""
    spectra = eqx.filter_jit(giraffe)
    rms = []
    for i in range(0, len(reference["labels"]), 8):
        flux = spectra(
            jnp.asarray(reference["labels"][i], jnp.float32), nuisances(float(reference["vmic"][i]))
        )
        expected = np.concatenate([seen(reference, i, arm) for arm in giraffe.instrument.arms])
        rms.append(np.sqrt(np.nanmean((np.asarray(flux) - expected) ** 2)))
    assert np.median(rms) <= 0.015
    assert np.percentile(rms, 90) <= 0.03


def seen(reference, i, arm):
    """A reference spectrum through an arm: Gaussian of R at its centre, mean over each pixel."""
    name = "blue" if arm.high < 7000 else "red"
    wavelength, flux = reference[f"wavelength_{name}"], reference[f"flux_{name}"][i].astype(float)
    step = 0.5 * (SPEED_OF_LIGHT * 0.02 / wavelength.mean())
    grid = wavelength[0] * np.exp(
        step / SPEED_OF_LIGHT * np.arange(np.log(wavelength[-1] / wavelength[0]) * SPEED_OF_LIGHT / step)
    )
    sigma = SPEED_OF_LIGHT / (FWHM_PER_SIGMA * float(arm.resolution(0.5 * (arm.low + arm.high))))
    smooth = gaussian_filter1d(np.interp(grid, wavelength, flux), sigma / step, mode="nearest")
    inside = arm.wavelength[:, None] + arm.step * (np.arange(5) / 5 - 0.4)
    pixels = np.interp(inside, grid, smooth, left=np.nan, right=np.nan).mean(axis=1)
    edge = (arm.wavelength < wavelength[0] + 1) | (arm.wavelength > wavelength[-1] - 1)
    return np.where(edge, np.nan, pixels)


def test_forward_model_is_a_pytree_that_survives_jit_as_an_argument():
    forward = ForwardModel.create(made_up_emulator(0.01), NARROW)
    direct = forward(LABELS, nuisances())
    passed = eqx.filter_jit(lambda model, x: model(x, nuisances()))(forward, LABELS)
    np.testing.assert_allclose(passed, direct, atol=2e-5)


def test_forward_models_are_chosen_by_name_or_file():
    """`load_forward_model` by its dotted name; a toy by another; names of nothing are named in the error."""
    giraffe = get_instrument("giraffe")
    assert forward_model(SHIPPED, "giraffe") is load_forward_model(giraffe)
    toy = forward_model("tests.experiments.toys.forward", "toy")  # importing it registers the instrument
    assert toy.instrument.name == "toy"
    for wrong in ("nowhere.forward", "jaxspec.physics.forward.nothing", "forward", "math.pi", "none.npz"):
        with pytest.raises(InputError, match=r"jaxspec\.physics\.forward\.load_forward_model|no such file"):
            forward_model(wrong, giraffe)
