"""LAMOST: rows of the primary image, the table COADD, and medium-resolution arms and exposures."""

import csv

import numpy as np
import pytest
from astropy.io import fits

from jaxspec.errors import InputError
from jaxspec.io import Quality, SeveralSpectra, read_spectrum
from jaxspec.spectra import vacuum_to_air
from tests.io.products import header, star, table, write

N = 3900
LOG = 3.5682 + 1e-4 * np.arange(N)
WAVE = 10**LOG
FLUX = star(WAVE, 30.0)
IVAR = np.full(N, 1e-2)
IVAR[200:210] = 0.0
AND, OR = np.zeros(N), np.zeros(N)
AND[300:305], OR[300:400] = 1, 1
CARDS = dict(
    TELESCOP="LAMOST", DESIG="LAMOST J063715.90+271356.5", OBSID=906003, RA=99.3, DEC=27.2, VACUUM=True,
    HELIO=True,    CLASS="STAR", SUBCLASS="F9", Z=1e-4, Z_ERR=2e-5, SNRG=70.0, COEFF0=3.5682, COEFF1=1e-4,
)  # fmt: skip


def rows(path, third, exten0="Flux Inverse Wavelength Andmask Ormask", **cards):
    data = np.stack([FLUX, IVAR, third, AND, OR]).astype("f4")
    return write(path, fits.PrimaryHDU(data, header(**{**CARDS, "EXTEN0": exten0, **cards})))


def check(spectrum):
    assert spectrum.product == "lamost-lrs" and spectrum.frame == "barycentric"
    assert spectrum.meta["medium"] == "vacuum" and spectrum.resolving_power == 1800
    np.testing.assert_allclose(spectrum.wavelength, vacuum_to_air(WAVE), atol=2e-3)
    good = np.ones(N, bool)
    good[200:210] = good[300:305] = False
    np.testing.assert_array_equal(spectrum.ivar > 0, good)
    np.testing.assert_allclose(spectrum.ivar[good], 1e-2, rtol=1e-6)
    np.testing.assert_allclose(spectrum.flux[good], FLUX[good], rtol=1e-6)
    assert (spectrum.quality[300:305] == Quality.FLAGGED).all() and (spectrum.quality[200:210] > 0).all()
    assert spectrum.star == "LAMOST J063715.90+271356.5"
    assert spectrum.velocity == pytest.approx(1e-4 * 299792.458, abs=0.01)
    assert spectrum.velocity_error == pytest.approx(6.0, abs=0.01)
    assert spectrum.meta["survey_labels"]["subclass"] == "F9"
    assert spectrum.meta["identifiers"]["obsid"] == 906003


def test_both_meanings_of_the_third_row_give_the_same_spectrum(tmp_path):
    early = rows(tmp_path / "a.fits", FLUX / 1000, "Flux Inverse Subcontinuum Andmask Ormask")
    check(read_spectrum(early))
    check(read_spectrum(rows(tmp_path / "b.fits", WAVE)))


def test_without_exten0_the_third_row_is_judged_by_what_it_holds(tmp_path):
    for third in (FLUX / 1000, WAVE):
        path = tmp_path / "a.fits"
        rows(path, third)
        with fits.open(path, mode="update") as file:
            del file[0].header["EXTEN0"]
        spectrum = read_spectrum(path)
        check(spectrum)
        assert any("no EXTEN0" in note for note in spectrum.meta["notes"])


def test_a_table_coadd_of_one_row_is_the_same_spectrum(tmp_path):
    columns = dict(FLUX=FLUX, IVAR=IVAR, WAVELENGTH=WAVE, ANDMASK=AND, ORMASK=OR, NORMALIZATION=FLUX / 1000)
    hdu = table({k: v[None] for k, v in columns.items()}, "COADD", rows=True)
    cards = {key: value for key, value in CARDS.items() if not key.startswith("COEFF")}
    check(read_spectrum(write(tmp_path / "a.fits", fits.PrimaryHDU(header=header(**cards)), hdu)))


@pytest.mark.parametrize(
    ("third", "exten0", "cards", "message"),
    [
        (FLUX, "Flux Inverse Wavelength Andmask Ormask", {}, "does not increase"),
        (WAVE, "Flux Inverse Subcontinuum Andmask Ormask", {}, "correct EXTEN0"),
        (WAVE, "Flux Inverse Wavelength Andmask", {}, "4 rows"),
        (WAVE, "Flux Sky Wavelength Andmask Ormask", {}, "names of rows among"),
        (WAVE + 3.0, "Flux Inverse Wavelength Andmask Ormask", {}, "one axis"),
    ],
)
def test_rows_that_are_not_what_they_are_said_to_be_are_refused(tmp_path, third, exten0, cards, message):
    with pytest.raises(InputError, match=message):
        read_spectrum(rows(tmp_path / "a.fits", third, exten0, **cards))


def test_an_axis_that_is_not_heliocentric_is_corrected_with_the_sign_of_the_survey(tmp_path):
    spectrum = read_spectrum(rows(tmp_path / "a.fits", WAVE, HELIO=False, HELIO_RV=-26.4))
    assert spectrum.frame == "barycentric"  # astropy's correction is +26.8 where a real header has -26.4
    np.testing.assert_allclose(spectrum.wavelength / vacuum_to_air(WAVE) - 1, 26.4 / 299792.458, atol=2e-6)


def test_galaxies_and_sentinels_give_no_velocity(tmp_path):
    assert read_spectrum(rows(tmp_path / "a.fits", WAVE, CLASS="GALAXY", Z=0.1)).velocity is None
    assert read_spectrum(rows(tmp_path / "b.fits", WAVE, Z=-9999.0)).velocity is None


def arm(name, low, high, level, scalar=False, **cards):
    wave = np.arange(low, high, 0.1)
    columns = dict(FLUX=star(wave, level=level), IVAR=np.full(len(wave), 1e-2))
    if name.startswith("COADD"):
        columns |= dict(WAVELENGTH=wave, ANDMASK=np.zeros(len(wave)), ORMASK=np.ones(len(wave)))
    else:
        columns |= dict(LOGLAM=np.log10(wave), PIXMASK=(np.arange(len(wave)) == 50).astype(float))
    if scalar:
        return table(columns, name, **cards)
    return table({k: v[None] for k, v in columns.items()}, name, rows=True, **cards)


def medium(path, *names, scalar=False):
    low = {"B": (4950.0, 5350.0), "R": (6300.0, 6800.0)}
    arms = [
        arm(
            n,
            *low["B" if "B" in n.split("_")[-1][:1] or n[0] == "B" else "R"],
            level,
            scalar,
            HELIO=True,
            VACUUM=True,
        )
        for n, level in names
    ]
    return write(path, fits.PrimaryHDU(header=header(TELESCOP="LAMOST", OBSID=1)), *arms)


@pytest.mark.parametrize("scalar", [False, True])
def test_medium_resolution_joins_the_coadded_arms_and_reads_an_exposure_when_asked(tmp_path, scalar):
    names = [("COADD_B", 1000), ("COADD_R", 1000), ("B-84420148", 500), ("R-84420148", 500)]
    path = medium(tmp_path / "m.fits", *names, scalar=scalar)
    both = read_spectrum(path)
    assert both.product == "lamost-mrs" and both.resolving_power == 7500 and both.frame == "barycentric"
    assert (both.ivar > 0).all()  # ORMASK is not a reason to mask
    assert both.wavelength[0] < 4951 and both.wavelength[-1] > 6790
    assert any("1 single exposures not used" in note for note in both.meta["notes"])
    one = read_spectrum(path, select="84420148")
    assert one.name == "m.fits#84420148"
    assert np.median(one.flux) == pytest.approx(np.median(both.flux) / 2, rel=1e-3)
    assert one.quality[50] & Quality.FLAGGED and (one.quality > 0).sum() == 2  # one in each arm


def test_exposures_without_a_coadded_spectrum_ask_for_a_choice(tmp_path):
    path = medium(tmp_path / "m.fits", ("B-84420148", 500), ("B-84420171", 500))
    with pytest.raises(SeveralSpectra, match=r"84420148, 84420171.*select=") as error:
        read_spectrum(path)
    assert error.value.choices == ("84420148", "84420171")
    with pytest.raises(InputError, match="no exposure '1'"):
        read_spectrum(path, select="1")


def test_real_files_agree_with_the_surveys_velocity_and_the_calcium_triplet_is_at_rest(data):
    folder = data / "spectra/lamost"
    labels = {row["file"]: row for row in csv.DictReader((folder / "labels.csv").read_text().splitlines())}
    files, offsets, triplet = sorted(folder.glob("*.fits")), [], []
    for path in files:
        spectrum = read_spectrum(path)
        with fits.open(path) as file:
            np.testing.assert_array_equal(
                spectrum.flux[spectrum.ivar > 0], file[0].data[0][spectrum.ivar > 0]
            )
        if path.name in labels:
            offsets.append(spectrum.velocity - float(labels[path.name]["rv"]))
        if spectrum.snr > 40 and spectrum.meta["survey_labels"]["subclass"][0] in "FG":
            rest = spectrum.rest_wavelength()
            for line in (8542.09, 8662.14):  # air
                near = np.abs(rest - line) < 9
                depth = 1 - spectrum.flux[near] / np.percentile(spectrum.flux[near], 90)
                depth = np.clip(depth - 0.3 * depth.max(), 0, None)
                triplet.append((np.sum(depth * rest[near]) / depth.sum() / line - 1) * 299792.458)
    assert len(files) == 93 and abs(np.median(offsets)) < 0.1
    assert len(triplet) > 30 and abs(np.median(triplet)) < 10  # the other medium would be 83 km/s away
