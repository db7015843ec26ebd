"""Coefficients of Gaia XP spectra against GaiaXPy, which wrote the book on them."""

import os
import warnings
from pathlib import Path

import numpy as np
import pytest

from jaxspec.errors import InputError
from jaxspec.foundation.xp import ARMS, COLOUR, XPBasis, load_design, read_continuous

pytest.importorskip("gaiaxpy", exc_type=ImportError)
DATA = Path(os.environ.get("JAXSPEC_DATA", "")) / "xp"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="needs reference data: xp/ in $JAXSPEC_DATA")


@pytest.fixture(scope="module")
def design():
    return load_design()


@pytest.fixture(scope="module")
def spectra(design):
    """Smooth spectra of many colours that the archive's bases can make, with noise of their coefficients."""
    rng = np.random.default_rng(0)
    x = (design.wavelength - 680.0) / 340.0
    smooth = np.exp(np.stack([np.polyval([a, b, c], x) for a, b, c in rng.normal(0, 0.4, (400, 3))]))
    flux = np.zeros_like(smooth)
    for arm in ARMS:
        alone = design.alone[arm]
        bases = design.bases[arm][:, alone]
        fitted = np.linalg.lstsq(bases.T, smooth[:, alone].T, rcond=1e-4)[0]
        flux[:, alone] = (bases.T @ fitted).T
    scale = 0.01 * rng.uniform(0.5, 2.0, (400, 1))
    for arm in ARMS:
        alone = design.alone[arm]
        bases = design.bases[arm][:, alone]
        unit = np.linalg.norm(bases, axis=0).mean()
        flux[:, alone] += scale * rng.standard_normal((400, 55)) @ bases / unit
    error = scale * np.concatenate([
        np.linalg.norm(design.bases[arm][:, design.alone[arm]], axis=0)
        / np.linalg.norm(design.bases[arm][:, design.alone[arm]], axis=0).mean()
        for arm in ARMS
    ])  # fmt: skip
    full = np.ones_like(flux)
    full[:, np.concatenate([np.flatnonzero(design.alone[arm]) for arm in ARMS])] = error
    return flux, full


@pytest.fixture(scope="module")
def basis(spectra, design):
    return XPBasis.fit(*spectra, design)


def test_noise_is_white_and_of_unit_size(basis, spectra, design):
    """The noise of these spectra is known: more of it adds its share to coefficients, independently."""
    flux, error = spectra
    found = basis.from_samples(flux[:1], error[:1])
    rng = np.random.default_rng(1)
    again = np.repeat(flux[:1], 3000, 0)
    for arm in ARMS:
        alone = design.alone[arm]
        bases = design.bases[arm][:, alone]
        draws = rng.standard_normal((3000, 55)) @ (bases / np.linalg.norm(bases, axis=0))
        again[:, alone] += draws * error[0, alone]
    many = basis.from_samples(again, np.repeat(error[:1], 3000, 0)).values
    ratio = many.std(0) / found.errors[0]
    # The mean flux, by which all are divided, adds to the noise of the first few alone.
    np.testing.assert_allclose(ratio[8:38], 1.0, atol=0.1)
    correlation = np.abs(np.corrcoef(many[:, 8:38].T) - np.eye(30))
    assert np.median(correlation) < 0.06


def test_scales_of_flux_do_not_matter(basis, spectra):
    flux, error = spectra
    a, b = basis.from_samples(flux[:5], error[:5]), basis.from_samples(1e-16 * flux[:5], 1e-16 * error[:5])
    np.testing.assert_allclose(a.values, b.values, rtol=1e-7, atol=1e-7)
    np.testing.assert_allclose(a.errors, b.errors, rtol=1e-7)
    assert a.names[0] == "bp_1" and a.names[-1] == COLOUR


def test_shapes_come_back(basis, spectra, design):
    flux, error = spectra
    found = basis.from_samples(flux[:20], error[:20])
    for arm in ARMS:
        columns = [found.names.index(name) for name in basis.of_arm(arm)]
        wanted = flux[:20, design.alone[arm]]
        wanted = wanted / wanted.mean(1, keepdims=True)
        left = basis.shape(arm, found.values[:, columns]) - wanted
        assert (
            np.abs(left) < 0.5 * error[:20, design.alone[arm]] / flux[:20, design.alone[arm]].mean(1)[:, None]
        ).all()


@needs_data
def test_continuous_and_sampled_files_agree(basis):
    """GaiaXPy's own calibration of the archive's coefficients, sampled, gives the same numbers as the
    coefficients themselves."""
    import gaiaxpy

    path = DATA / "XP_CONTINUOUS_RAW.csv"
    source, coefficients, covariances = read_continuous(path)
    found = basis.from_coefficients(coefficients, covariances)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sampled, wavelength = gaiaxpy.calibrate(path, save_file=False)
    np.testing.assert_array_equal(wavelength, load_design().wavelength)
    flux, error = (np.stack(sampled[name]).astype(float) for name in ("flux", "flux_error"))
    again = basis.from_samples(flux, error)
    np.testing.assert_array_equal(source, sampled["source_id"])
    assert (np.abs(found.values - again.values) < 0.01 * found.errors + 1e-6).all()
    # Errors from covariances, by drawing coefficients.
    rng = np.random.default_rng(0)
    for arm in ARMS:
        draws = rng.multivariate_normal(coefficients[arm][0], covariances[arm][0], 2000)
        other = "rp" if arm == "bp" else "bp"
        parts = {arm: list(draws), other: [None] * 2000}
        spread = basis.from_coefficients(parts, {arm: [covariances[arm][0]] * 2000, other: [None] * 2000})
        columns = [found.names.index(name) for name in basis.of_arm(arm)]
        np.testing.assert_allclose(spread.values[:, columns].std(0), found.errors[0, columns], rtol=0.1)
        assert np.isnan(spread.values[:, found.names.index(COLOUR)]).all()


@needs_data
@pytest.mark.parametrize(
    "name",
    [
        *(f"XP_CONTINUOUS_RAW.{suffix}" for suffix in ("fits", "ecsv", "xml")),
        "MeanSpectrumSolutionWithCov.avro", "XP_CONTINUOUS_RAW_with_missing_BP.csv",
        "XP_CONTINUOUS_RAW_with_missing_BP.fits",
    ],
)  # fmt: skip
def test_every_format_of_the_archive_reads_alike(basis, name):
    if name.endswith(".avro"):
        pytest.importorskip("fastavro")
    source, *spectra = read_continuous(DATA / "XP_CONTINUOUS_RAW.csv")
    wanted = basis.from_coefficients(*spectra)
    other, *spectra = read_continuous(DATA / name)
    found = basis.from_coefficients(*spectra)
    rows = [int(np.flatnonzero(other == s)[0]) for s in source]
    np.testing.assert_allclose(found.values[rows], wanted.values, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(found.errors[rows], wanted.errors, rtol=1e-3)
    if "missing" in name:
        (row,) = set(range(len(other))) - set(rows)
        arms = np.array([n[:2] for n in found.names])
        assert (
            np.isnan(found.values[row][arms == "bp"]).all()
            and np.isfinite(found.values[row][arms == "rp"]).all()
        )


def test_files_that_are_none_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_continuous(tmp_path / "none.csv")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match=r"other\.csv.*gaiaxpy cannot read"):
        read_continuous(tmp_path / "other.csv")
