"""DESI's files of many targets: arms joined, masks, resolution matrices, the choice of a target."""

import numpy as np
import pytest
from astropy.io import fits
from scipy.stats import norm

from jaxspec.errors import InputError
from jaxspec.instruments import Arm, Instrument
from jaxspec.io import SeveralSpectra, read_spectra, read_spectrum
from jaxspec.io.desi import matrix_sigma
from jaxspec.spectra import vacuum_to_air
from tests.io.products import header, star, table, write

ARMS = dict(
    B=(3600.0, 5800.0, 1.2), R=(5760.0, 7620.0, 0.9), Z=(7520.0, 9824.0, 0.8)
)  # and the LSF's sigma, A
TARGETS = np.array([39627652591521181, 39627652591521182, 39627652591521183])


def diagonals(n, sigma_pixels, d=11):
    """A Gaussian resolution matrix as DESI stores it: element j of offset k is in row j - k, column j."""
    offset = np.arange(d // 2, -(d // 2) - 1, -1)[:, None]
    edges = norm.cdf(np.stack([offset - 0.5, offset + 0.5]) / sigma_pixels)
    return np.repeat(edges[1] - edges[0], n, axis=1)


def coadd(path, targets=TARGETS, kinds=("TGT", "TGT", "SKY"), arms="BRZ", exposures=None, fit=True):
    n = len(targets)
    fibermap = dict(TARGETID=targets, OBJTYPE=np.array(kinds[:n]), COADD_FIBERSTATUS=np.zeros(n, int))
    fibermap |= dict(TARGET_RA=np.arange(n) + 10.0, TARGET_DEC=np.zeros(n))
    if exposures is not None:
        fibermap["EXPID"] = np.array(exposures)
    hdus = [fits.PrimaryHDU(), table(fibermap, "FIBERMAP")]
    for arm in arms:
        low, high, sigma = ARMS[arm]
        wave = np.arange(low, high + 0.1, 0.8)
        flux = np.stack([star(wave, 20.0, 100.0 * (i + 1)) for i in range(len(targets))])
        mask = np.zeros(flux.shape, np.int32)
        mask[:, 1000] = 2
        ivar = np.ones(flux.shape)
        ivar[:, 1100] = 0
        matrix = np.stack([diagonals(len(wave), sigma / 0.8)] * len(targets))
        hdus.append(fits.ImageHDU(wave, header(BUNIT="Angstrom"), name=f"{arm}_WAVELENGTH"))
        for name, values in (("FLUX", flux), ("IVAR", ivar), ("MASK", mask), ("RESOLUTION", matrix)):
            hdus.append(
                fits.ImageHDU(values.astype(values.dtype if name == "MASK" else "f4"), name=f"{arm}_{name}")
            )
    if fit:
        hdus.append(
            table(
                dict(TARGETID=targets[::-1], VRAD=[3.0, 2.0, 1.0][: len(targets)], TEFF=[5.0] * len(targets)),
                "RVTAB",
            )
        )
    return write(path, *hdus)


def test_one_target_of_several_is_chosen_by_its_targetid(tmp_path):
    path = coadd(tmp_path / "coadd.fits")
    with pytest.raises(SeveralSpectra, match=r"2 spectra \(target.*select='39627652591521181'") as error:
        read_spectrum(path)
    assert error.value.choices == tuple(map(str, TARGETS[:2]))  # not the sky
    spectrum = read_spectrum(path, select=str(TARGETS[1]))
    assert (spectrum.product, spectrum.frame, spectrum.meta["medium"]) == ("desi", "barycentric", "vacuum")
    assert spectrum.star == f"DESI {TARGETS[1]}" and spectrum.velocity == 2.0
    assert spectrum.meta["ra"] == 11.0 and spectrum.meta["survey_labels"]["teff"] == 5.0
    vacuum = spectrum.wavelength
    expected = star(np.interp(vacuum, vacuum_to_air(W := np.arange(3500.0, 9900.0, 0.05)), W), 20.0, 200.0)
    good = spectrum.ivar > 0
    np.testing.assert_allclose(spectrum.flux[good], expected[good], rtol=1e-3)
    assert (~good).sum() == 6  # a masked pixel and one without ivar, in each arm
    assert sum("overlap" in note for note in spectrum.meta["notes"]) == 2


def test_resolving_power_comes_from_the_matrix_of_each_arm(tmp_path):
    spectrum = read_spectrum(coadd(tmp_path / "a.fits", TARGETS[:1]))
    for low, high, sigma in ((4000, 5000, 1.2), (6500, 7000, 0.9), (8400, 9000, 0.8)):
        middle = 0.5 * (low + high)
        # A pixel's width adds 1/12 pixel^2 to the second moment.
        wanted = middle / np.sqrt(sigma**2 + 0.64 / 12) / 2.3548
        assert spectrum.resolving_power_in(low, high) == pytest.approx(wanted, rel=0.02)


def test_moments_of_a_matrix_with_gaps_and_edges():
    matrix = diagonals(200, 1.5)
    matrix[:, 50:60] = 0.0
    sigma = matrix_sigma(matrix, "x", 200)
    np.testing.assert_allclose(sigma, np.sqrt(1.5**2 + 1 / 12), rtol=0.02)
    with pytest.raises(InputError, match="resolution matrix of shape"):
        matrix_sigma(matrix, "x", 199)


def test_single_exposures_of_one_target_are_told_apart(tmp_path):
    targets = np.repeat(TARGETS[:1], 2)
    path = coadd(tmp_path / "a.fits", targets, exposures=[80000, 80001], fit=False)
    with pytest.raises(SeveralSpectra, match=r"39627652591521181-80000, 39627652591521181-80001"):
        read_spectrum(path)
    assert np.median(read_spectrum(path, select=f"{TARGETS[0]}-80001").flux) > 150


def test_a_missing_arm_is_told_and_missing_arrays_are_refused(tmp_path):
    spectrum = read_spectrum(coadd(tmp_path / "a.fits", TARGETS[:1], arms="RZ"))
    assert any("arm b is not in the file" in note for note in spectrum.meta["notes"])
    path = coadd(tmp_path / "b.fits", TARGETS[:1])
    with fits.open(path) as file:
        write(tmp_path / "c.fits", *[hdu for hdu in file if hdu.name != "R_WAVELENGTH"])
    with pytest.raises(InputError, match="no image R_WAVELENGTH"):
        read_spectrum(tmp_path / "c.fits")


def test_all_targets_become_rows_and_an_instrument_elsewhere_names_both_ranges(tmp_path):
    path = coadd(tmp_path / "coadd.fits")
    low = Instrument("low", (Arm("r", 8480.0, 8980.0, 2.0, 2000.0),))
    spectra, refused = read_spectra(path, low, select="all", velocity=0.0, snr_max=None)
    assert spectra.names == (f"coadd.fits#{TARGETS[0]}", f"coadd.fits#{TARGETS[1]}") and not refused
    far = Instrument("far", (Arm("h", 15200.0, 15800.0, 2.0, 2000.0),))
    with pytest.raises(InputError, match=r"good pixels in 35.*98.* A.*overlap with far \(15200-15800 A\)"):
        read_spectra(path, far, select=str(TARGETS[0]))
