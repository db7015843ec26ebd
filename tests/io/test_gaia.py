"""Gaia's RVS mean spectra in the formats of the archive: one pixel a row or one star a row, as CSV, ECSV,
VOTable, FITS and zip."""

import zipfile

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import MaskedColumn, Table

from jaxspec.errors import InputError
from jaxspec.io import SeveralSpectra, read_spectrum
from jaxspec.spectra import vacuum_to_air

SOURCE = 2131314401800665344
NM = np.round(846.0 + 0.01 * np.arange(2401), 2)
FLUX = 1 - 0.5 * np.exp(-0.5 * ((NM - 854.44) / 0.1) ** 2) - 0.4 * np.exp(-0.5 * ((NM - 866.45) / 0.1) ** 2)
ERROR = np.full(2401, 0.01)
MISSING = slice(0, 7)


def pixels(sources=(SOURCE,)):
    masked = MaskedColumn(np.tile(FLUX, len(sources)))
    errors = MaskedColumn(np.tile(ERROR, len(sources)))
    for k in range(len(sources)):
        masked.mask[k * 2401 : k * 2401 + 7] = True
        errors.mask[k * 2401 : k * 2401 + 7] = True
    made = Table(
        dict(source_id=np.repeat(np.array(sources, np.int64), 2401), wavelength=np.tile(NM, len(sources)))
    )
    made["flux"], made["flux_error"] = masked, errors
    made["combined_transits"] = 9
    made["wavelength"].unit = "nm"
    return made


def raw(sources=(SOURCE,)):
    flux, error = FLUX.copy(), ERROR.copy()
    flux[MISSING] = error[MISSING] = np.nan
    n = len(sources)
    return Table(
        dict(source_id=np.array(sources, np.int64), ra=[10.0] * n, flux=[flux] * n, flux_error=[error] * n)
    )


def text_arrays(path, sources=(SOURCE,), null="null", header=""):
    def cell(values):
        words = [null] * 7 + [repr(float(v)) for v in values[7:]]
        return '"[' + ", ".join(words) + ']"'

    lines = [f"{s},10.0,{cell(FLUX)},{cell(ERROR)}" for s in sources]
    path.write_text(header + "source_id,ra,flux,flux_error\n" + "\n".join(lines) + "\n")
    return path


def write(path, kind):
    if kind == "csv":
        pixels().write(path, format="ascii.csv")
    elif kind == "csv-null":
        pixels().filled(np.nan).write(path, format="ascii.csv")
        path.write_text(path.read_text().replace("nan", "null"))
    elif kind == "ecsv":
        pixels().write(path, format="ascii.ecsv")
    elif kind == "votable":
        pixels().write(path, format="votable")
    elif kind == "votable-parameters":  # INDIVIDUAL: what is of the star is a parameter, not a column
        made = pixels()
        made.remove_column("source_id")
        made.write(path, format="votable")
        parameter = f'<PARAM name="source_id" datatype="long" value="{SOURCE}"/>'
        path.write_text(path.read_text().replace("<FIELD", parameter + "<FIELD", 1))
    elif kind == "fits":
        pixels().filled(np.nan).write(path, format="fits")
    elif kind == "fits-header":
        made = pixels().filled(np.nan)
        made.remove_column("source_id")
        hdu = fits.BinTableHDU(made)
        hdu.header["HIERARCH SOURCE_ID"] = SOURCE
        fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path)
    elif kind == "raw-fits":
        raw().write(path, format="fits")
    elif kind == "raw-votable":
        raw().write(path, format="votable")
    elif kind == "raw-csv":
        text_arrays(path)
    elif kind == "raw-bulk":
        head = "# %ECSV 1.0\n# ---\n# delimiter: ','\n# datatype:\n# - {name: source_id, datatype: int64}\n"
        text_arrays(path, header=head, null="NaN")
    elif kind == "zip":
        pixels().write(path.with_suffix(".csv"), format="ascii.csv")
        with zipfile.ZipFile(path, "w") as archive:
            archive.write(path.with_suffix(".csv"), "RVS-Gaia DR3 1.csv")
    return path


KINDS = (
    "csv", "csv-null", "ecsv", "votable", "votable-parameters", "fits", "fits-header",
    "raw-fits", "raw-votable", "raw-csv", "raw-bulk", "zip",
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_every_format_of_the_archive_gives_the_same_spectrum(tmp_path, kind):
    spectrum = read_spectrum(write(tmp_path / "a.dat", kind))
    assert (spectrum.product, spectrum.frame, spectrum.velocity) == ("gaia-rvs", "rest", 0.0)
    assert spectrum.meta["medium"] == "vacuum" and spectrum.resolving_power == 11500
    assert spectrum.star == f"Gaia DR3 {SOURCE}"  # larger than a float can hold
    np.testing.assert_allclose(spectrum.wavelength, vacuum_to_air(NM * 10), atol=1e-6)
    assert (spectrum.ivar[MISSING] == 0).all() and (spectrum.ivar[9:] > 0).all()
    np.testing.assert_allclose(spectrum.flux[9:], FLUX[9:], rtol=1e-6)
    np.testing.assert_allclose(spectrum.ivar[9:], 1e4, rtol=1e-6)


@pytest.mark.parametrize("how", ["pixels", "raw", "text"])
def test_several_stars_in_a_file_ask_for_one_by_its_source_id(tmp_path, how):
    two = (SOURCE, 4268620287278693120)
    path = tmp_path / "a.csv"
    if how == "pixels":
        pixels(two).write(path, format="ascii.csv")
    elif how == "raw":
        raw(two).write(path, format="votable")
    else:
        text_arrays(path, two)
    with pytest.raises(SeveralSpectra, match=f"2 spectra.*{two[1]}.*select='{SOURCE}'"):
        read_spectrum(path)
    chosen = read_spectrum(path, select=str(two[1]))
    assert chosen.star.endswith(str(two[1])) and len(chosen.flux) == 2401


def test_sampled_xp_spectra_are_read_as_such_and_coefficients_are_refused(tmp_path):
    flux = 1e-16 * (1 + 0.1 * np.sin(np.arange(343) / 30))
    xp = Table(dict(source_id=[SOURCE], flux=[flux], flux_error=[flux / 100]))
    xp.write(tmp_path / "xp.fits")
    spectrum = read_spectrum(tmp_path / "xp.fits")
    assert (spectrum.product, spectrum.frame, spectrum.velocity) == ("gaia-xp", "barycentric", None)
    np.testing.assert_allclose(spectrum.wavelength, vacuum_to_air(3360 + 20.0 * np.arange(343)), atol=1e-6)
    np.testing.assert_allclose(spectrum.flux, flux, rtol=1e-6)
    Table(dict(source_id=[SOURCE], bp_coefficients=[np.ones(55)])).write(tmp_path / "c.csv.fits")
    with pytest.raises(InputError, match=r"gaiaxpy\.calibrate"):
        read_spectrum(tmp_path / "c.csv.fits")


def test_wavelengths_in_another_unit_are_refused(tmp_path):
    made = pixels()
    made["wavelength"] = NM * 10
    made.write(tmp_path / "a.csv", format="ascii.csv")
    with pytest.raises(InputError, match="the archive's files are in nm"):
        read_spectrum(tmp_path / "a.csv")


@pytest.mark.parametrize("name", ["XP_SAMPLED_RAW.csv", "XP_SAMPLED_RAW.fits", "XP_CONTINUOUS_RAW.csv"])
def test_real_xp_files(data, name):
    path = data / "xp" / name
    if "CONTINUOUS" in name:
        with pytest.raises(InputError, match="coefficients of XP spectra"):
            read_spectrum(path)
        return
    with pytest.raises(SeveralSpectra) as error:
        read_spectrum(path)
    spectrum = read_spectrum(path, select=error.value.choices[0])
    assert spectrum.product == "gaia-xp" and len(spectrum.flux) == 343


def test_a_cut_off_array_is_refused(tmp_path):
    path = text_arrays(tmp_path / "a.csv")
    path.write_text(path.read_text()[:9000])
    with pytest.raises(InputError, match=r"a\.csv"):
        read_spectrum(path)


def test_real_spectra_have_the_calcium_triplet_at_rest(data):
    for path in sorted((data / "spectra/gaia_rvs").glob("*.csv")):
        spectrum = read_spectrum(path)
        table = np.genfromtxt(path, delimiter=",", names=True)
        good = spectrum.ivar > 0
        np.testing.assert_allclose(spectrum.flux[good], table["flux"][good], rtol=1e-6)
        np.testing.assert_allclose(spectrum.ivar[good], table["flux_error"][good] ** -2.0, rtol=1e-6)
        for line in (8542.09, 8662.14):  # air
            near = np.abs(spectrum.wavelength - line) < 3
            depth = 1 - spectrum.flux[near] / np.percentile(spectrum.flux[near], 90)
            depth = np.clip(depth - 0.3 * depth.max(), 0, None)
            centre = np.sum(depth * spectrum.wavelength[near]) / depth.sum()
            assert abs(centre / line - 1) * 299792.458 < 5
