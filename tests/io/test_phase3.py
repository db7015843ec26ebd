"""ESO Phase 3 tables: columns by utype, then UCD, then name, in the variants that real collections use."""

import numpy as np
import pytest
from astropy.io import fits

from jaxspec.errors import InputError
from jaxspec.io import Quality, read_spectrum
from tests.survey import write_phase3

N = 400
WAVE = 5400.0 + 0.05 * np.arange(N)
FLUX = 1000.0 * (1 - 0.5 * np.exp(-0.5 * ((WAVE - 5410.0) / 0.2) ** 2))
IVAR = np.full(N, 0.01)
V1 = (
    "Spectrum.Data.SpectralAxis.Value",
    "Spectrum.Data.FluxAxis.Value",
    "Spectrum.Data.FluxAxis.Accuracy.StatError",
    "Spectrum.Data.FluxAxis.Accuracy.QualityStatus",
)


def write(path, ivar=IVAR, **how):
    write_phase3(path, WAVE, FLUX, ivar, "star", **how)
    return path


def write_columns(path, columns, extname="SPECTRUM", **header):
    """A table from (name, utype, UCD, unit, values)."""
    cells = [
        fits.Column(
            name=c[0], format=f"{len(c[4])}{'J' if c[4].dtype.kind == 'i' else 'D'}", unit=c[3], array=[c[4]]
        )
        for c in columns
    ]
    table = fits.BinTableHDU.from_columns(cells, name=extname)
    for i, (_, utype, ucd, _, _) in enumerate(columns, start=1):
        if utype:
            table.header[f"TUTYP{i}"] = utype
        if ucd:
            table.header[f"TUCD{i}"] = ucd
    primary = fits.PrimaryHDU()
    primary.header.update({"SPECSYS": "BARYCENT", **header})
    fits.HDUList([primary, table]).writeto(path, overwrite=True)
    return path


@pytest.mark.parametrize("unit", ["nm", "angstrom", "Angstrom"])
@pytest.mark.parametrize("extname", ["phase3spectrum", "SPECTRUM"])
@pytest.mark.parametrize("utypes", [V1, None, "survey"])
def test_every_spelling_gives_the_same_spectrum(tmp_path, unit, extname, utypes):
    how = {} if utypes == "survey" else {"utypes": utypes}
    spectrum = read_spectrum(write(tmp_path / "a.fits", unit=unit, extname=extname, **how))
    np.testing.assert_allclose(spectrum.wavelength, WAVE, atol=1e-9)
    np.testing.assert_allclose(spectrum.flux, FLUX, rtol=1e-6)
    np.testing.assert_allclose(spectrum.ivar, IVAR, rtol=1e-6)
    assert (spectrum.product, spectrum.frame, spectrum.velocity) == ("eso-phase3", "barycentric", None)
    assert spectrum.meta["medium"] == "air"


def test_columns_with_nothing_but_names(tmp_path):
    path = write(tmp_path / "a.fits", utypes=None, ucds=None, columns=("WAVE", "FLUX", "ERR", "QUAL"))
    with pytest.raises(InputError, match="air or vacuum"):
        read_spectrum(path)
    np.testing.assert_allclose(read_spectrum(path, medium="air").flux, FLUX, rtol=1e-6)


def test_vacuum_by_ucd(tmp_path):
    path = write(
        tmp_path / "a.fits",
        ucds=("em.wl", "phot.flux.density;em.wl", "stat.error;phot.flux.density", "meta.code.qual"),
    )
    spectrum = read_spectrum(path)
    assert spectrum.meta["medium"] == "vacuum"
    np.testing.assert_allclose(WAVE - spectrum.wavelength, 1.50, atol=0.02)


@pytest.mark.parametrize("missing", [np.nan, 0.0])
def test_an_error_of_nan_or_zero_is_no_value(tmp_path, missing):
    ivar = IVAR.copy()
    ivar[10:20] = 0
    spectrum = read_spectrum(write(tmp_path / "a.fits", ivar=ivar, missing=missing))
    assert (spectrum.ivar[10:20] == 0).all() and (spectrum.ivar > 0).sum() == N - 10
    assert (spectrum.quality[10:20] & Quality.NO_ERROR).all() and (
        spectrum.quality[10:20] & Quality.FLAGGED
    ).all()


@pytest.mark.parametrize("missing", [np.nan, 0.0])
def test_no_error_at_all_is_said_clearly(tmp_path, missing):
    columns = [
        ("WAVE", V1[0], "em.wl;obs.atmos", "nm", WAVE / 10),
        ("FLUX", V1[1], None, "adu", FLUX),
        ("ERR", V1[2], None, "adu", np.full(N, missing)),
    ]
    path = write_columns(tmp_path / "harps.fits", columns)
    with pytest.raises(InputError, match=r"harps\.fits: found no errors.*estimate_noise"):
        read_spectrum(path)
    assert read_spectrum(path, snr=50.0).snr == pytest.approx(50.0, rel=0.01)


def test_the_sky_background_is_never_the_flux_and_errors_belong_to_their_flux(tmp_path):
    # UVES gives its background the UCD of other products' flux; X-shooter has a calibrated and a raw set.
    sky = np.zeros(N)
    columns = [
        ("WAVE", "spec:Data.SpectralAxis.Value", "em.wl;obs.atmos", "nm", WAVE / 10),
        (
            "BGFLUX_REDUCED",
            "spec:Data.BackgroundModel.Value",
            "phot.flux.density;em.wl;stat.uncalib",
            "adu",
            sky,
        ),
        (
            "ERR_REDUCED",
            "eso:Data.FluxAxis.Accuracy.StatError",
            "stat.error;phot.flux.density",
            "adu",
            np.full(N, 99.0),
        ),
        (
            "FLUX_REDUCED",
            "eso:Data.FluxAxis.Value",
            "phot.flux.density;em.wl;src.net;stat.uncalib",
            "adu",
            7 * FLUX,
        ),
        ("FLUX", "spec:Data.FluxAxis.Value", "phot.flux.density;em.wl;src.net;meta.main", "cgs", FLUX),
        (
            "ERR",
            "spec:Data.FluxAxis.Accuracy.StatError",
            "stat.error;phot.flux.density;meta.main",
            "cgs",
            np.full(N, 10.0),
        ),
    ]
    spectrum = read_spectrum(write_columns(tmp_path / "a.fits", columns))
    np.testing.assert_array_equal(spectrum.flux, FLUX)
    np.testing.assert_allclose(spectrum.ivar, 0.01)


def test_resolving_power_frame_and_topocentric_correction(tmp_path):
    header = {"SPEC_RES": 17000.0, "SPECSYS": "TOPOCENT", "HIERARCH ESO QC BARYCORR": 12.0}
    spectrum = read_spectrum(write(tmp_path / "a.fits", header=header))
    assert spectrum.resolving_power == 17000.0 and spectrum.frame == "barycentric"
    np.testing.assert_allclose((spectrum.wavelength / WAVE - 1) * 299792.458, 12.0, atol=1e-6)
    with pytest.raises(InputError, match="velocity frame"):
        read_spectrum(write(tmp_path / "b.fits", header={"SPECSYS": None}))
    with pytest.raises(InputError, match="SPECSYS = 'SOMEWHERE'"):
        read_spectrum(write(tmp_path / "c.fits", header={"SPECSYS": "SOMEWHERE"}))


def change(path, key, value, hdu=1):
    with fits.open(path, mode="update") as file:
        if value is None:
            del file[hdu].header[key]
        else:
            file[hdu].header[key] = value
    return path


@pytest.mark.parametrize(
    ("key", "value", "match"),
    [
        ("TUNIT1", "Angstrom", "wavelengths 540 to 542"),  # 540 A
        ("TUNIT1", "um", "5.4e\\+06"),
        ("TUNIT1", None, "no unit"),
        ("TUNIT1", "furlong", "wavelength unit 'furlong'"),
        ("TDMIN1", 640.0, "TDMIN1"),
        ("NELEM", 399, "NELEM = 399"),
        ("TUNIT3", "erg", "errors in 'erg'"),
    ],
)
def test_a_header_that_contradicts_its_data_is_refused(tmp_path, key, value, match):
    path = change(write(tmp_path / "a.fits"), key, value)
    with pytest.raises(InputError, match=rf"a\.fits.*({match}|TDMIN1|TDMAX1|WAVELM)"):
        read_spectrum(path)


def test_missing_columns_and_several_rows_are_refused(tmp_path):
    wave, flux = ("WAVE", V1[0], "em.wl;obs.atmos", "nm", WAVE / 10), ("FLUX", V1[1], None, "adu", FLUX)
    for columns, match in (
        ([wave], "no flux column"),
        ([flux], "no wavelength column"),
        ([wave, (*flux[:4], FLUX[:-1])], "different lengths"),
    ):
        with pytest.raises(InputError, match=rf"a\.fits.*{match}"):
            read_spectrum(write_columns(tmp_path / "a.fits", columns), snr=10.0)
    cells = [
        fits.Column(name=n, format=f"{N}D", unit=u, array=np.stack([a, a]))
        for n, u, a in (("WAVE", "nm", WAVE / 10), ("FLUX", "", FLUX))
    ]
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU.from_columns(cells, name="SPECTRUM")]).writeto(
        tmp_path / "two.fits"
    )
    with pytest.raises(InputError, match=r"two\.fits.*one row"):
        read_spectrum(tmp_path / "two.fits", medium="air", frame="rest", snr=10.0)


def write_table(path, arrays, null=None, layout="cells", extname="STAR", medium="em.wl;obs.atmos"):
    """A table of nothing but names: one row of cells, one pixel a row, or cells of variable length."""
    cells = []
    for name, values in arrays.items():
        values = np.asarray(values)
        code = {"i": "J", "b": "L"}.get(values.dtype.kind, "D")
        unit = "Angstrom" if name.upper() in ("WAVE", "WAVELENGTH") else None
        form = {"cells": f"{len(values)}{code}", "rows": code, "variable": f"P{code}()"}[layout]
        data = values if layout == "rows" else [values]
        blank = (null or {}).get(name)
        cells.append(fits.Column(name, form, array=data, unit=unit, null=blank))
    table = fits.BinTableHDU.from_columns(cells, name=extname)
    table.header["TUCD1"] = medium
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(path, overwrite=True)
    return path


@pytest.mark.parametrize("layout", ["cells", "rows", "variable"])
@pytest.mark.parametrize("extname", ["SPECTRUM", "COADD", ""])
@pytest.mark.parametrize(
    ("name", "power"),
    [("ERR", 1), ("STD", 1), ("UNCERTAINTY", 1), ("VARIANCE", 2), ("IVAR", -2), ("flux_invvar", -2)],
)
def test_errors_by_every_name_in_every_table(tmp_path, layout, extname, name, power):
    arrays = {"WAVE": WAVE, "FLUX": FLUX, name: 10.0**power * np.ones(N), "MASK": np.arange(N) == 9}
    spectrum = read_spectrum(
        write_table(tmp_path / "a.fits", arrays, layout=layout, extname=extname), frame="rest"
    )
    assert np.flatnonzero(spectrum.ivar == 0).tolist() == [9]
    np.testing.assert_allclose(np.delete(spectrum.ivar, 9), 0.01)


@pytest.mark.parametrize("layout", ["cells", "rows"])
@pytest.mark.parametrize("column", ["FLUX", "ERR", "QUAL"])
def test_tnull_marks_its_pixels(tmp_path, column, layout):
    arrays = {"WAVE": WAVE, "FLUX": FLUX.astype(int), "ERR": np.full(N, 10), "QUAL": np.zeros(N, int)}
    arrays[column] = arrays[column].copy()
    arrays[column][30:40] = -999
    spectrum = read_spectrum(
        write_table(tmp_path / "a.fits", arrays, null={column: -999}, layout=layout), frame="rest"
    )
    bad = set(np.flatnonzero(spectrum.ivar == 0))
    assert set(range(30, 40)) <= bad <= set(range(29, 41))


def test_columns_of_one_number_and_other_columns_are_told(tmp_path):
    path = tmp_path / "a.fits"
    write_table(path, {"WAVE": WAVE, "FLUX": FLUX, "ERR": np.full(N, 10.0), "SKY": FLUX, "NORM_FLUX": FLUX})
    with fits.open(path) as file:
        columns = file[1].columns + fits.ColDefs([fits.Column("FLAG", "J", array=[3])])
        table = fits.BinTableHDU.from_columns(columns, name="STAR")
        table.header["TUCD1"] = "em.wl"
        fits.HDUList([file[0], table]).writeto(tmp_path / "b.fits")
    spectrum = read_spectrum(tmp_path / "b.fits", frame="rest")
    assert (spectrum.ivar > 0).all()
    told = " ".join(spectrum.meta["not_used"])
    assert all(name in told for name in ("SKY", "NORM_FLUX", "FLAG"))


def test_a_second_table_with_a_spectrum_is_told(tmp_path):
    write_table(tmp_path / "a.fits", {"WAVE": WAVE, "FLUX": FLUX, "ERR": np.full(N, 10.0)})
    with fits.open(tmp_path / "a.fits") as file:
        second = fits.BinTableHDU(file[1].data, file[1].header, name="RED")
        fits.HDUList([file[0], file[1], second]).writeto(tmp_path / "b.fits")
    assert "another spectrum" in " ".join(read_spectrum(tmp_path / "b.fits", frame="rest").meta["not_used"])


def test_one_unit_in_two_spellings(tmp_path):
    path = write(tmp_path / "a.fits")
    change(path, "TUNIT2", "erg cm**(-2) s**(-1) angstrom**(-1)")
    change(path, "TUNIT3", "erg/cm**2/s/angstrom")
    np.testing.assert_allclose(read_spectrum(path).ivar, IVAR, rtol=1e-6)
    change(path, "TUNIT3", "10**(-3) erg/cm**2/s/angstrom")
    np.testing.assert_allclose(read_spectrum(path).ivar, 1e6 * IVAR, rtol=1e-6)
