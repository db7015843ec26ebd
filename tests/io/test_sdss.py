"""SDSS and BOSS spec files, and the Milky Way Mapper's star and visit files."""

import numpy as np
import pytest
from astropy.io import fits

from jaxspec.errors import InputError
from jaxspec.io import SeveralSpectra, read_spectrum
from jaxspec.spectra import vacuum_to_air
from tests.io.products import header, star, table, write

LOGLAM = 3.5523 + 1e-4 * np.arange(4648)
WAVE = 10**LOGLAM
FLUX = star(WAVE, 50.0)
IVAR = np.full(4648, 1e-2)
IVAR[100] = 0.0


def spec(path, upper=False, drop=(), row=None, **columns):
    made = dict(
        flux=FLUX, loglam=LOGLAM, ivar=IVAR, and_mask=np.zeros(4648, np.int64),
        or_mask=np.zeros(4648, np.int64),        wdisp=np.full(4648, 1.0), sky=FLUX,
    )  # fmt: skip
    made["and_mask"][[200, 201]] = 1 << 23, 1 << 18
    made["and_mask"][:] |= 1 << 5  # MANYREJECTED, of the whole fibre
    made["or_mask"][300] = 1 << 23
    made |= columns
    made = {(k.upper() if upper else k): v for k, v in made.items() if k not in drop}
    values = dict(
        CLASS=["STAR"], SUBCLASS=["F9"], Z=[1.6678e-4], Z_ERR=[1e-5], ZWARNING=[0], ELODIE_TEFF=[5900.0]
    )
    values |= {k: [v] for k, v in (row or {}).items()}
    primary = fits.PrimaryHDU(header=header(PLATEID=4055, MJD=55359, FIBERID=7, PLUG_RA=10.0, PLUG_DEC=1.0))
    return write(path, primary, table(made, "COADD"), table(values, "SPECOBJ"))


@pytest.mark.parametrize("upper", [False, True])
def test_spec_file(tmp_path, upper):
    spectrum = read_spectrum(spec(tmp_path / "a.fits", upper))
    assert (spectrum.product, spectrum.frame, spectrum.star) == (
        "sdss-spec",
        "barycentric",
        "SDSS 4055-55359-7",
    )
    assert spectrum.meta["medium"] == "vacuum" and (spectrum.meta["ra"], spectrum.meta["dec"]) == (10.0, 1.0)
    np.testing.assert_allclose(spectrum.wavelength, vacuum_to_air(WAVE), rtol=1e-12)
    assert np.flatnonzero(spectrum.ivar == 0).tolist() == [100, 200, 201]
    np.testing.assert_allclose(spectrum.ivar[spectrum.ivar > 0], 1e-2)
    assert spectrum.velocity == pytest.approx(50.0, abs=0.02)
    assert spectrum.velocity_error == pytest.approx(3.0, abs=0.01)
    assert spectrum.meta["survey_labels"]["teff"] == 5900.0
    # A sigma of one pixel of 1e-4 in log10: R = 1 / (2.3548 x 1e-4 x ln 10).
    assert spectrum.resolving_power_in(5330, 5610) == pytest.approx(1844.3, abs=1)


def test_what_the_pipeline_is_not_sure_of_gives_no_velocity(tmp_path):
    assert read_spectrum(spec(tmp_path / "a.fits", row=dict(CLASS="QSO"))).velocity is None
    assert read_spectrum(spec(tmp_path / "b.fits", row=dict(ZWARNING=4))).velocity is None
    assert read_spectrum(spec(tmp_path / "c.fits", row=dict(ZWARNING=16))).velocity is not None


def test_the_same_columns_in_a_file_of_nobodys_do_not_imply_medium_and_frame(tmp_path):
    made = dict(flux=FLUX, loglam=LOGLAM, ivar=IVAR)
    path = write(tmp_path / "a.fits", fits.PrimaryHDU(), table(made, "COADD"))
    with pytest.raises(InputError, match="air or vacuum"):
        read_spectrum(path)


def test_without_masks_a_note_says_so(tmp_path):
    spectrum = read_spectrum(spec(tmp_path / "a.fits", drop=("and_mask", "or_mask")))
    assert any("judged by ivar alone" in note for note in spectrum.meta["notes"])


def mwm(path, kind, filled, visits=1):
    """Four tables; `filled` are those with spectra, of `visits` rows with flux 1, 2, ... times the star."""
    hdus = [fits.PrimaryHDU(header=header(V_ASTRA="0.5.0", SDSS_ID=42, GAIA3_ID=SOURCE, RA=1.0, DEC=2.0))]
    for index, name in enumerate(("BOSS/APO", "BOSS/LCO", "APOGEE/APO", "APOGEE/LCO")):
        start, step, n = (3.5523, 1e-4, 4648) if index < 2 else (4.179, 6e-6, 8575)
        wave = 10 ** (start + step * np.arange(n))
        rows = visits if name in filled else 0
        flux = np.stack([star(wave) * (i + 1) for i in range(rows)]) if rows else np.zeros((0, n))
        flags = np.zeros(flux.shape, np.int64)
        flags[:, 50], flags[:, 51] = (1 << 23, 1 << 19) if index < 2 else (1, 512)
        columns = dict(sdss_id=np.full(rows, 42), snr=np.full(rows, 50.0), v_rad=np.full(rows, 12.5))
        if kind == "star":
            columns["wavelength"] = np.tile(wave, (rows, 1))
            columns |= dict(min_mjd=np.full(rows, 59804), xcsao_teff=np.full(rows, 5800.0))
        else:
            columns["mjd"] = 59804 + np.arange(rows)
        columns |= dict(flux=flux, ivar=np.full(flux.shape, 1e-2), pixel_flags=flags)
        cards = dict(
            CRVAL=start, CDELT=step, CRPIX=1, CTYPE="LOG-LINEAR", CUNIT="Angstrom (Vacuum)", NPIXELS=n
        )
        hdus.append(table(columns, name, rows=True, **cards))
    return write(path, *hdus)


SOURCE = 2131314401800665344


@pytest.mark.parametrize(("name", "n"), [("BOSS/LCO", 4648), ("APOGEE/APO", 8575)])
@pytest.mark.parametrize("kind", ["star", "visit"])
def test_the_only_filled_table_is_read(tmp_path, name, n, kind):
    spectrum = read_spectrum(mwm(tmp_path / "a.fits", kind, [name]))
    assert (spectrum.product, spectrum.frame, spectrum.star) == ("sdss-mwm", "rest", "SDSS 42")
    assert len(spectrum.flux) == n and spectrum.meta["instrument"] == name.split("/")[0]
    assert np.flatnonzero(spectrum.ivar == 0).tolist() == [50]
    assert spectrum.resolving_power == (1800 if n == 4648 else 22500)
    assert spectrum.meta["velocity_barycentric"] == 12.5
    assert spectrum.meta["identifiers"]["gaia3_id"] == str(SOURCE)
    assert spectrum.meta["survey_labels"] == ({"teff": 5800.0} if kind == "star" else {})


def test_several_tables_and_visits_ask_for_a_choice(tmp_path):
    path = mwm(tmp_path / "a.fits", "star", ["BOSS/APO", "APOGEE/LCO"])
    with pytest.raises(SeveralSpectra, match=r"boss/apo, apogee/lco.*select='boss/apo'"):
        read_spectrum(path)
    assert len(read_spectrum(path, select="APOGEE/LCO").flux) == 8575
    visits = mwm(tmp_path / "b.fits", "visit", ["APOGEE/LCO"], visits=3)
    second = read_spectrum(visits, select="apogee/lco/59805")
    assert np.median(second.flux) == pytest.approx(
        2 * np.median(star(vacuum_to_air(second.wavelength))), rel=0.01
    )
    assert second.name == "b.fits#apogee-lco-59805"


def test_nothing_but_empty_tables_is_refused(tmp_path):
    with pytest.raises(InputError, match="without any spectrum"):
        read_spectrum(mwm(tmp_path / "a.fits", "star", []))
