"""Files onto an instrument's grid: at rest, at its resolution, with refusals counted, against independent
numbers."""

import logging
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from jaxspec.catalogues import join, read_gaia_eso
from jaxspec.errors import InputError
from jaxspec.instruments import FWHM_PER_SIGMA, SPEED_OF_LIGHT, Arm, Instrument, get_instrument
from jaxspec.io import Assume, Quality, Template, find_files, read_spectra
from jaxspec.io.collection import full_path
from tests.survey import write_gaia_eso, write_survey

GIRAFFE = get_instrument("giraffe")
SMALL = Instrument(
    "small", (Arm("hr10", 5400.0, 5440.0, 0.05, 20000.0), Arm("hr21", 8500.0, 8540.0, 0.05, 18000.0))
)
LINES = np.concatenate(
    [
        5400 + np.array([3.1, 7.7, 8.9, 15.2, 21.4, 27.3, 33.6]),
        8500 + np.array([2.2, 9.1, 14.8, 25.3, 31.0, 36.6]),
    ]
)


def star(wavelength, velocity=0.0, resolving_power=20000.0, depth=0.5):
    """Lines of the instrument's width at a velocity, written down analytically."""
    beta = velocity / SPEED_OF_LIGHT
    flux = np.ones_like(wavelength)
    for i, line in enumerate(LINES):
        centre = line * np.sqrt((1 + beta) / (1 - beta))
        sigma = centre / resolving_power / FWHM_PER_SIGMA
        flux = flux - depth * (0.4 + 0.1 * (i % 5)) * np.exp(-0.5 * ((wavelength - centre) / sigma) ** 2)
    return flux


def write_text(path, wavelength, flux, error=None):
    columns = [wavelength, flux] + ([] if error is None else [np.full(len(flux), error)])
    np.savetxt(path, np.column_stack(columns), fmt="%.6f")
    return path


FINE = np.arange(5390.0, 5450.0, 0.02)
TEMPLATE = Template(SMALL.wavelength, np.stack([star(SMALL.wavelength), star(SMALL.wavelength, depth=0.2)]))


def test_a_spectrum_at_rest_lands_on_the_grid_and_the_missing_arm_is_ivar_zero(tmp_path):
    path = write_text(tmp_path / "s.txt", FINE, 700.0 * star(FINE), 7.0)
    spectra, refused = read_spectra(path, SMALL, frame="rest", medium="air")
    assert not refused and spectra.names == ("s.txt",) and spectra.flux.shape == (1, SMALL.n_pixels)
    blue, red = SMALL.slices["hr10"], SMALL.slices["hr21"]
    expected = star(SMALL.wavelength)[blue]
    np.testing.assert_allclose(spectra.flux[0, blue], expected / np.median(expected), atol=3e-3)
    # 2.5 pixels of S/N 100 in one of 0.05 A
    assert spectra.meta[0]["snr"] == pytest.approx(100 * np.sqrt(2.5), rel=0.05)
    assert (spectra.ivar[0, red] == 0).all() and (spectra.quality[0, red] == Quality.NOT_COVERED).all()
    assert spectra.meta[0]["arms"] == ("hr10",) and spectra.meta[0]["velocity_origin"] == "rest frame"


@pytest.mark.parametrize("velocity", [-180.0, -3.3, 0.0, 42.0])
def test_an_unknown_velocity_is_measured_and_recorded(tmp_path, rng, velocity):
    flux = star(FINE, velocity) + rng.normal(0, 0.01, len(FINE))
    path = write_text(tmp_path / "s.txt", FINE, flux, 0.01)
    spectra, _ = read_spectra(path, SMALL, medium="air", template=TEMPLATE)
    meta = spectra.meta[0]
    assert meta["velocity_origin"] == "measured" and 0.01 < meta["velocity_error"] < 1.0
    assert abs(meta["velocity"] - velocity) < 5 * meta["velocity_error"]
    blue = SMALL.slices["hr10"]
    good = spectra.ivar[0, blue] > 0
    expected = star(SMALL.wavelength)[blue]
    residual = spectra.flux[0, blue] * meta["flux_scale"]["hr10"] - expected
    assert np.abs(residual[good]).mean() < 0.01


def test_without_a_template_an_unknown_velocity_is_asked_for(tmp_path):
    path = write_text(tmp_path / "s.txt", FINE, star(FINE), 0.01)
    with pytest.raises(InputError, match=r"s\.txt.*velocity frame"):
        read_spectra(path, SMALL, medium="air")
    with pytest.raises(InputError, match=r"s\.txt.*barycentric frame without a velocity"):
        read_spectra(path, SMALL, medium="air", frame="barycentric")
    spectra, _ = read_spectra(path, SMALL, medium="air", frame="barycentric", velocity={"s": 12.0})
    assert spectra.meta[0]["velocity"] == 12.0 and spectra.meta[0]["velocity_origin"] == "catalogue"
    spectra, _ = read_spectra(path, SMALL, medium="air", velocity=12.0)
    assert spectra.meta[0]["velocity_origin"] == "argument"
    with pytest.raises(InputError, match="template"):
        read_spectra(path, SMALL, medium="air", velocity="measure")


def test_a_spectrum_beside_every_arm_is_refused_before_its_velocity_is_measured(tmp_path, rng):
    path = write_text(tmp_path / "s.txt", np.arange(5600.0, 5660.0, 0.02), np.ones(3000), 0.01)
    with pytest.raises(InputError, match=r"5600\.0-5660\.0 A.*overlap with small \(5400-5440, 8500-8540 A\)"):
        read_spectra(path, SMALL, medium="air", template=TEMPLATE)


def test_a_sharper_spectrum_is_brought_to_the_arms_resolution(tmp_path):
    path = write_text(tmp_path / "s.txt", FINE, star(FINE, resolving_power=60000.0), 0.01)
    spectra, _ = read_spectra(path, SMALL, frame="rest", medium="air", resolving_power={"s*": 60000.0})
    blue = SMALL.slices["hr10"]
    good = spectra.ivar[0, blue] > 0
    wavelength = SMALL.wavelength[blue]
    # A Gaussian line of depth d convolved with another keeps its equivalent width: depth falls by the ratio
    # of widths.
    expected = np.ones_like(wavelength)
    for i, line in enumerate(LINES[:7]):
        narrow, wide = line / 60000.0 / FWHM_PER_SIGMA, line / 20000.0 / FWHM_PER_SIGMA
        expected -= (
            0.5 * (0.4 + 0.1 * (i % 5)) * narrow / wide * np.exp(-0.5 * ((wavelength - line) / wide) ** 2)
        )
    found = spectra.flux[0, blue] * spectra.meta[0]["flux_scale"]["hr10"]
    np.testing.assert_allclose(found[good], expected[good], atol=4e-3)
    assert spectra.meta[0]["resolution"]["hr10"] == "20000 from 60000"
    lower, _ = read_spectra(path, SMALL, frame="rest", medium="air", resolving_power=10000.0)
    assert any("below" in note for note in lower.meta[0]["notes"])


def test_bad_files_are_refused_by_name_and_the_others_go_on(tmp_path):
    for name in ("a.txt", "c.txt"):
        write_text(tmp_path / name, FINE, star(FINE), 0.01)
    (tmp_path / "b.txt").write_text("5400 1 0.1\n5401 x 0.1\n")
    write_text(tmp_path / "d.txt", FINE - 1000, star(FINE), 0.01)
    spectra, refused = read_spectra(tmp_path / "*.txt", SMALL, frame="rest", medium="air")
    assert spectra.names == ("a.txt", "c.txt")
    assert [e.where.split("/")[-1].split()[0] for e in refused] == ["b.txt", "d.txt"]
    assert "overlap with small (5400-5440, 8500-8540 A)" in str(refused[1])
    with pytest.raises(InputError, match="1 more files refused"):
        read_spectra([tmp_path / "b.txt", tmp_path / "d.txt"], SMALL, frame="rest", medium="air")
    with pytest.raises(InputError, match=r"none\*"):
        read_spectra(tmp_path / "none*", SMALL)
    assert [p.name for p in find_files(tmp_path)] == ["a.txt", "b.txt", "c.txt", "d.txt"]
    assert len(find_files([tmp_path / "a.txt", tmp_path, "x.fits"])) == 5


def test_what_a_folder_holds_beside_spectra_is_told(tmp_path, caplog):
    flux = (1 + np.zeros(2000)).astype("f4")
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(flux[None])]).writeto(tmp_path / "b.fits.fz")
    fits.PrimaryHDU(flux).writeto(tmp_path / "strange.suffix")
    for name in ("a.FITS", "a.txt.gz", "c.s", "d.tsv", "notes.md", "image.png", "other.png", ".hidden.txt"):
        (tmp_path / name).write_text("5000 1\n")
    (tmp_path / "inner").mkdir()
    with caplog.at_level(logging.WARNING):
        found = [p.name for p in find_files(tmp_path)]
    assert found == ["a.FITS", "a.txt.gz", "b.fits.fz", "c.s", "d.tsv", "strange.suffix"]
    assert "1 hidden, 2 .png, 1 folders, 1 .md" in caplog.text
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "x.h5").write_text("")
    with pytest.raises(InputError, match=r"no file that is read \(1 \.h5\)"):
        find_files(tmp_path / "empty")


def test_a_file_counts_once_however_it_is_named(tmp_path, monkeypatch):
    write_text(tmp_path / "a.txt", FINE, star(FINE), 0.01)
    (tmp_path / "link.txt").symlink_to(tmp_path / "a.txt")
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path)
    names = ["a.txt", "./a.txt", tmp_path / "a.txt", "sub/../a.txt", "*.txt", tmp_path, "link.txt"]
    assert find_files(names) == [Path("a.txt")]


def test_values_by_path_belong_to_that_file_alone(tmp_path, monkeypatch):
    for folder in ("night1", "night2"):
        (tmp_path / folder).mkdir()
        write_text(tmp_path / folder / "star.txt", FINE, star(FINE), 0.01)
    monkeypatch.chdir(tmp_path)
    files = ["night1/star.txt", tmp_path / "night2/star.txt"]
    powers = {full_path("night2/star.txt"): 60000.0}
    spectra, _ = read_spectra(files, SMALL, frame="rest", medium="air", resolving_power=powers)
    assert [m["resolution"]["hr10"] for m in spectra.meta] == ["unknown, taken as 20000", "20000 from 60000"]
    alone, _ = read_spectra(files[0], SMALL, frame="rest", medium="air")
    np.testing.assert_array_equal(alone.flux[0], spectra.flux[0])
    assert len(set(spectra.names)) == 2


def test_snr_max_raises_the_errors(tmp_path):
    path = write_text(tmp_path / "s.txt", FINE, star(FINE), 1e-4)
    spectra, _ = read_spectra(path, SMALL, frame="rest", medium="air", snr_max=300.0)
    assert 250 < spectra.meta[0]["snr"] <= 300.5
    assert spectra.meta[0]["errors_raised"]["hr10"] > 30
    spectra, _ = read_spectra(path, SMALL, frame="rest", medium="air")
    assert 1.0 < spectra.meta[0]["errors_raised"]["hr10"] < 1.3  # by what resampled neighbours share


def test_calibrated_fluxes_keep_finite_float32_ivar(tmp_path):
    write_gaia_eso(
        tmp_path / "a.fit",
        SMALL.arms[0].wavelength,
        1e-17 * star(SMALL.arms[0].wavelength),
        np.full(800, 1e38),
        "x",
    )
    spectra, _ = read_spectra(tmp_path / "a.fit", SMALL)
    assert np.isfinite(spectra.ivar).all() and spectra.meta[0]["snr"] == pytest.approx(100, rel=0.05)


@pytest.fixture
def survey(tmp_path, rng):
    n, p = 6, SMALL.n_pixels
    flux = np.stack([star(SMALL.wavelength, depth=0.3 + 0.05 * i) for i in range(n)])
    ivar = np.full((n, p), 2500.0)
    ivar[2, SMALL.slices["hr21"]] = 0  # a missing arm
    ivar[3, 100:110] = 0
    labels = np.tile([5500.0, 4.0, -0.2, -0.1, 0.0, 0.0, -0.2, -0.1, 0.0], (n, 1))
    labels[4, 3] = np.nan
    velocity = np.array([0.0, 25.0, -60.0, 110.0, 5.0, -5.0])
    made = write_survey(tmp_path, SMALL, flux, ivar, labels, np.full((n, 9), 0.05), velocity=velocity)
    return made, flux, ivar, labels, velocity


def test_a_survey_in_both_layouts_comes_back_as_it_was_put_in(survey):
    made, flux, ivar, labels, velocity = survey
    catalogue = read_gaia_eso(made.catalogue)
    known = dict(zip(catalogue.names, catalogue.velocity.tolist(), strict=True))
    spectra, refused = read_spectra(made.files, SMALL, velocity=known, combine=True)
    assert not refused and len(made.files) == 11
    index, row = join(spectra.names, catalogue)
    assert len(index) == 6 and [spectra.names[i] for i in index] == [made.names[r] for r in row]
    np.testing.assert_allclose(catalogue.labels[row], labels[row], atol=1e-3)
    for i, r in zip(index, row, strict=True):
        for pixels in SMALL.slices.values():
            good = spectra.ivar[i, pixels] > 0
            # A pixel in steep flanks moves by a fraction of a pixel and back; the mean error says whether it
            # is the same star.
            expected = flux[r, pixels] / np.median(flux[r, pixels])
            assert good.any() == (ivar[r, pixels] > 0).any()
            if good.any():
                assert np.abs(spectra.flux[i, pixels][good] - expected[good]).mean() < 2e-3
        assert spectra.meta[i]["velocity"] == pytest.approx(velocity[r], abs=1e-4)
    masked = int(index[list(row).index(3)])
    assert (spectra.ivar[masked, 101:109] == 0).all()


def test_real_spectra_measured_against_each_other(data):
    # The GIRAFFE Sun as the template for the UVES and HARPS Suns: all are the same star, velocities of order
    # 1 km/s.
    sun, _ = read_spectra(data / "spectra/giraffe/*", GIRAFFE)
    good = (sun.ivar[0] > 0) & (np.arange(GIRAFFE.n_pixels) < 5600)
    first, last = np.flatnonzero(good)[[0, -1]]
    template = Template(
        GIRAFFE.wavelength[first : last + 1], np.asarray(sun.flux, float)[:, first : last + 1]
    )
    files = [data / f"spectra/hr10/{name}.txt" for name in ("sun_uves", "sun_vesta_harps")]
    spectra, _ = read_spectra(files, GIRAFFE, template=template, assume=Assume(medium="air"), snr_max=300.0)
    pixels = slice(first + 200, last - 200)
    for i, meta in enumerate(spectra.meta):
        assert abs(meta["velocity"]) < 1.5 and meta["velocity_error"] < 0.2
        ratio = spectra.flux[i, pixels] / np.asarray(sun.flux)[0, pixels]
        slope = np.polynomial.Polynomial.fit(np.arange(ratio.size), ratio, 3)(np.arange(ratio.size))
        assert np.std(ratio / slope) < 0.02


@pytest.fixture
def two_arms(rng):
    wavelength = np.concatenate([np.arange(5390.0, 5450.0, 0.05), np.arange(8490.0, 8550.0, 0.05)])
    flux = star(wavelength) + rng.normal(0, 0.01, len(wavelength))
    return wavelength, flux, wavelength > 6000


@pytest.mark.parametrize("what", ["oversubtracted", "noise", "wild noise", "no data", "nan"])
@pytest.mark.parametrize("errors", [True, False])
def test_an_arm_that_cannot_be_a_spectrum_is_masked_and_told(tmp_path, caplog, rng, two_arms, what, errors):
    wavelength, flux, red = two_arms
    error, alone = np.full(len(flux), 0.01), flux.copy()
    noise = rng.normal(size=len(flux))
    flux[red] = {
        "oversubtracted": flux - 1.5,
        "noise": noise,
        "wild noise": 3.0 * noise,
        "no data": 0.0 * flux,
        "nan": flux * np.nan,
    }[what][red]
    if what == "noise":
        error[red] = 1.0
    columns = [wavelength, flux] + ([error] if errors else [])
    np.savetxt(tmp_path / "s.txt", np.column_stack(columns), fmt="%.6f")
    np.savetxt(tmp_path / "t.txt", np.column_stack([wavelength, alone, error])[~red], fmt="%.6f")
    how = dict(frame="rest", medium="air", estimate_noise=True)
    spectra, _ = read_spectra(tmp_path / "s.txt", SMALL, **how)
    blue_alone, _ = read_spectra(tmp_path / "t.txt", SMALL, **how)
    hr21 = SMALL.slices["hr21"]
    assert spectra.meta[0]["arms"] == ("hr10",) and (spectra.ivar[0, hr21] == 0).all()
    assert (spectra.quality[0, hr21] & Quality.NO_SPECTRUM).all()
    assert "arm hr21" in " ".join(spectra.meta[0]["notes"]) and "arm hr21 is masked" in caplog.text
    np.testing.assert_allclose(spectra.flux, blue_alone.flux, atol=1e-5)
    if errors:
        np.testing.assert_allclose(spectra.ivar, blue_alone.ivar, rtol=1e-4)


def test_without_an_arm_that_can_be_a_spectrum_the_file_is_refused(tmp_path, rng, two_arms):
    wavelength, flux, _ = two_arms
    np.savetxt(
        tmp_path / "s.txt", np.column_stack([wavelength, rng.normal(size=len(flux)), np.ones(len(flux))])
    )
    with pytest.raises(InputError, match=r"s\.txt"):
        read_spectra(tmp_path / "s.txt", SMALL, frame="rest", medium="air")
