"""Damaged copies of real files: either the right answer or an `InputError` that names the file.

What can be promised depends on what a file carries. Gaia-ESO files have checksums and four copies of the
axis: whatever is read is exactly right. Files without checksums: an altered pixel is masked, or has changed
by less than `UNSEEN` of the local level, which no reader can tell from noise; likewise an error by less than
a factor of ten. The keywords of a single, unprotected header that have no second copy (`CRVAL1`, `CRPIX1` of
a lone image) are left out: any value in the optical is possible there, and it is the radial velocity that
fails to be found when one is wrong.
"""

import numpy as np
import pytest
from astropy.io import fits

from jaxspec.errors import InputError
from jaxspec.io import read_spectrum

UNSEEN = 0.35
GES = "spectra/giraffe/gar_ssssssss-sssssss_H548.8_106.fit"


def damage(data: bytes, kind: str, rng: np.random.Generator, low: int = 0, high: int | None = None) -> bytes:
    high = len(data) if high is None else high
    at = int(rng.integers(low, high))
    out = bytearray(data)
    if kind == "bit":
        out[at] ^= 1 << int(rng.integers(8))
    elif kind == "byte":
        out[at] = int(rng.integers(256))
    elif kind == "digit":
        out[at] = int(rng.integers(0x20, 0x7F))
    elif kind == "zeros":
        out[at : at + 512] = bytes(len(out[at : at + 512]))
    elif kind == "garbage":
        out[at : at + 512] = rng.bytes(len(out[at : at + 512]))
    elif kind == "truncate":
        del out[at:]
    elif kind == "delete":
        del out[at]
    elif kind == "insert":
        out.insert(at, int(rng.integers(256)))
    return bytes(out)


KINDS = ("bit", "byte", "digit", "zeros", "garbage", "truncate", "delete", "insert")


def attempt(path, data, how):
    """The spectrum, or None when it was refused in the right way; anything else fails the test."""
    path.write_bytes(data)
    try:
        return read_spectrum(path, **how)
    except InputError as error:
        assert path.name in str(error), f"the error does not name the file: {error}"
        return None


def same_where_used(found, truth, exact: bool) -> None:
    """Every pixel that claims to be good must be the one of the sound file."""
    used = np.flatnonzero(found.ivar > 0)
    index = np.searchsorted(truth.wavelength, found.wavelength[used] - 1e-9)
    index = np.clip(index, 0, len(truth.wavelength) - 1)
    nearer = (index > 0) & (
        np.abs(truth.wavelength[index - 1] - found.wavelength[used])
        < np.abs(truth.wavelength[index] - found.wavelength[used])
    )
    index = index - nearer
    step = np.median(np.diff(truth.wavelength))
    shift = np.abs(truth.wavelength[index] - found.wavelength[used])
    level = np.percentile(truth.flux[truth.ivar > 0], 90)
    change = np.abs(found.flux[used] - truth.flux[index]) / level
    ratio = found.ivar[used] / np.where(truth.ivar[index] > 0, truth.ivar[index], np.inf)
    if exact:
        assert shift.max() < 1e-4 and change.max() == 0 and (found.ivar[used] == truth.ivar[index]).all()
    else:
        assert shift.max() < 0.25 * step, shift.max()
        assert change.max() < UNSEEN, change.max()
        assert ratio.max() < 101 and (ratio > 1.01).sum() <= 2 and (change > 1e-6).sum() <= 3


def test_gaia_eso(data, tmp_path, rng):
    sound = (data / GES).read_bytes()
    truth = read_spectrum(data / GES)
    how = {"frame": "unknown"}  # a damaged table of velocities makes them unknown, not wrong
    read = 0
    headers = [(h["hdrLoc"], h["datLoc"]) for h in _places(data / GES)]
    for trial in range(80):
        kind = KINDS[trial % len(KINDS)]
        # Two in three in the headers, where checksums protect less.
        low, high = headers[int(rng.integers(len(headers)))] if trial % 3 else (0, len(sound))
        spectrum = attempt(tmp_path / "damaged.fit", damage(sound, kind, rng, low, high), how)
        if spectrum is not None:
            read += 1
            same_where_used(spectrum, truth, exact=True)
            assert spectrum.velocity in (None, truth.velocity)
    assert 5 < read < 70  # some damage does no harm (comments, tables that are not used)


def _places(path):
    with fits.open(path) as file:
        return [hdu.fileinfo() for hdu in file]


@pytest.mark.parametrize("key", ["CRVAL1", "CD1_1", "CRPIX1", "CTYPE1", "NAXIS1", "BITPIX", "CUNIT1"])
def test_gaia_eso_axis_keywords_are_checked_against_their_copies(data, tmp_path, key):
    sound = (data / GES).read_bytes()
    truth = read_spectrum(data / GES)
    at = sound.index(f"{key:8s}=".encode())
    rng = np.random.default_rng(1)
    for _ in range(6):
        spectrum = attempt(tmp_path / "a.fit", damage(sound, "digit", rng, at, at + 32), {"frame": "unknown"})
        if spectrum is not None:
            same_where_used(spectrum, truth, exact=True)


@pytest.mark.parametrize(
    "name", ["final_ivar", "normalised_spectrum", "velclass", "Fibinfo", "normalised_ivar"]
)
def test_gaia_eso_with_an_extension_dropped(data, tmp_path, name):
    truth = read_spectrum(data / GES)
    with fits.open(data / GES) as file:
        kept = fits.HDUList([hdu.copy() for hdu in file if hdu.name.lower() != name.lower()])
        kept.writeto(tmp_path / "part.fit", checksum=True)
    spectrum = attempt(tmp_path / "part.fit", (tmp_path / "part.fit").read_bytes(), {"frame": "unknown"})
    if name == "final_ivar":
        assert spectrum is None
    else:
        same_where_used(spectrum, truth, exact=True)


def test_gaia_eso_with_table_columns_dropped(data, tmp_path):
    with fits.open(data / GES) as file:
        for column in ("VEL", "EVEL", "Cname"):
            hdus = fits.HDUList([hdu.copy() for hdu in file])
            table = hdus["velclass"]
            hdus[5] = fits.BinTableHDU.from_columns(
                [c for c in table.columns if c.name != column], name="velclass"
            )
            hdus.writeto(tmp_path / f"no_{column}.fit", checksum=True)
            spectrum = read_spectrum(tmp_path / f"no_{column}.fit")
            assert (spectrum.velocity is None) == (column == "VEL")


def test_image_with_error_extension(data, tmp_path, rng):
    # Cut to a tenth: 20,000 pixels of a real file, in the file's own layout.
    source = data / "spectra/uves/hd_175305_narval.fits"
    with fits.open(source) as file:
        hdus = fits.HDUList(
            [
                fits.PrimaryHDU(file[0].data[50000:70000], file[0].header),
                fits.ImageHDU(file[1].data[50000:70000], file[1].header),
            ]
        )
        for hdu in hdus:
            hdu.header["CRVAL1"] = 530.0
        hdus.writeto(tmp_path / "sound.fits")
    _check_unprotected(tmp_path, {"frame": "rest"}, rng, trials=64)


def test_single_image(data, tmp_path, rng):
    with fits.open(data / "spectra/mike/hd140283.fits") as file:
        part = fits.PrimaryHDU(file[0].data[60000:80000], file[0].header)
        part.writeto(tmp_path / "sound.fits")
    _check_unprotected(
        tmp_path, {"frame": "rest", "medium": "air", "snr": 100.0}, rng, trials=64, spare=("CRVAL1", "CRPIX1")
    )


def _check_unprotected(tmp_path, how, rng, trials, spare=()):
    sound = (tmp_path / "sound.fits").read_bytes()
    truth = read_spectrum(tmp_path / "sound.fits", **how)
    headers = [(h["hdrLoc"], h["datLoc"]) for h in _places(tmp_path / "sound.fits")]
    spared = {key: sound.index(f"{key:8s}=".encode()) for key in spare}
    read = 0
    for trial in range(trials):
        kind = KINDS[trial % len(KINDS)]
        low, high = headers[int(rng.integers(len(headers)))] if trial % 2 else (0, len(sound))
        changed = damage(sound, kind, rng, low, high)
        if any(changed[at : at + 80] != sound[at : at + 80] for at in spared.values()):
            continue
        spectrum = attempt(tmp_path / "damaged.fits", changed, how)
        if spectrum is not None:
            read += 1
            same_where_used(spectrum, truth, exact=False)
    assert read > 5


@pytest.mark.parametrize("name", ["16_cyg_a_harps", "procyon_uves_1"])
def test_text(data, tmp_path, rng, name):
    lines = (data / f"spectra/hr10/{name}.txt").read_bytes().splitlines(keepends=True)[2000:5000]
    (tmp_path / "sound.txt").write_bytes(b"".join(lines))
    how = {"frame": "rest", "medium": "air"}
    truth, sound = read_spectrum(tmp_path / "sound.txt", **how), b"".join(lines)
    read = 0
    for trial in range(100):
        kind = (*KINDS, "digit", "digit")[trial % 10]
        if kind == "digit":
            at = int(rng.integers(len(sound)))
            changed = sound[:at] + bytes([int(rng.integers(0x30, 0x3A))]) + sound[at + 1 :]
        else:
            changed = damage(sound, kind, rng)
        spectrum = attempt(tmp_path / "damaged.txt", changed, how)
        if spectrum is not None:
            read += 1
            same_where_used(spectrum, truth, exact=False)
    assert read > 15
