"""One list in every format, what is refused or skipped, and spectra with a list from a file."""

import gzip
import logging
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxspec.errors import InputError
from jaxspec.physics.linelists import read_line_list
from jaxspec.physics.lines import LineList
from jaxspec.physics.model import StellarModel
from jaxspec.physics.synthesis import Window
from tests.physics.linelists.samples import (
    FORMATS,
    KURUCZ,
    MOOG,
    TURBOSPECTRUM,
    VALD_SHORT_ALL,
    VALD_SHORT_STELLAR,
)

GAIA_ESO = "linelists/ges_linelist_v6_turbospectrum.gz"
SUN = (5777.0, 4.44, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


@pytest.fixture
def written(tmp_path):
    def write(content: str | bytes, name: str = "a.list") -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_list(name, written):
    lines = read_line_list(written(FORMATS[name]))
    np.testing.assert_allclose(lines.wavelength, [5371.489, 5528.405, 8542.091], atol=1.5e-3)
    assert lines.element.tolist() == [25, 11, 19] and lines.stage.tolist() == [0, 0, 1]
    np.testing.assert_allclose(lines.energy, [0.9582, 4.3458, 1.6999], atol=1e-3)
    np.testing.assert_allclose(lines.log_gf, [-1.645, -0.498, -0.463], atol=1e-6)
    np.testing.assert_allclose(lines.damping, [-7.82, -6.98, -7.68], atol=1e-6)
    if not name.startswith("moog"):
        np.testing.assert_allclose(lines.gamma_rad, 10.0 ** np.array([7.15, 8.72, 8.21]), rtol=0.02)
    # The wings of the Ca II triplet in cool giants; those of an iron line end sooner.
    assert lines.reach[2] > 100.0 > lines.reach[0] > 10.0


def test_range_gzip_and_given_format(written):
    path = written(gzip.compress(KURUCZ.encode()))
    assert len(read_line_list(path, "kurucz", low=5371.4885, high=5371.4895)) == 1
    with pytest.raises(InputError, match="no line between 6000 and 7000 A"):
        read_line_list(path, low=6000, high=7000)
    with pytest.raises(InputError, match=r"line 1.*as the heading|heading"):
        read_line_list(path, "vald")


def test_molecules_and_ions_are_refused_or_skipped_and_counted(written, caplog):
    for argument, change in (("molecules", "CN 1"), ("ions", "Fe 4")):
        path = written(VALD_SHORT_ALL.replace("Mg 1", change))
        with pytest.raises(InputError, match=rf'line 4.*{change}.*give {argument}="skip"'):
            read_line_list(path)
        caplog.clear()
        assert len(read_line_list(path, **{argument: "skip"})) == 2
        assert "1 lines of" in caplog.text


def test_hydrogen_is_left_to_the_synthesis_and_that_is_said(written, caplog):
    with caplog.at_level(logging.INFO):
        lines = read_line_list(written(MOOG.replace("12.0 ", " 1.0 ")))
    assert len(lines) == 2 and "1 lines of hydrogen skipped" in caplog.text


def test_isotopes_count_by_their_fractions(written):
    isotope = TURBOSPECTRUM.replace("12.000", "12.025")
    lines = read_line_list(written(isotope))
    assert lines.log_gf[1] == pytest.approx(-0.498 + np.log10(0.1), abs=2e-3)  # 10 % of Mg is 25Mg
    with pytest.raises(InputError, match="an isotope that occurs on Earth"):
        read_line_list(written(TURBOSPECTRUM.replace("12.000", "12.030")))


def test_missing_damping_is_unsoeld_times_a_factor(written):
    path = written(VALD_SHORT_ALL.replace("-6.980", " 0.000"))
    assert read_line_list(path).damping[1] == 2.5
    assert read_line_list(path, unsoeld=1.0).damping[1] == 1.0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no text"),
        ("\n\n", "no text"),
        (b"\x00\x01\x02", "binary"),
        (gzip.compress(KURUCZ.encode())[:-20], "complete gzip"),
        ("a poem\nabout stars\n", "no known format"),
        (MOOG.replace("5528.405", " 552.841"), r"line 3.*wavelength from 2000"),
        (MOOG.replace("-0.498", "49.8  "), r"line 3.*log_gf"),
        (VALD_SHORT_ALL.replace("4.3458", "-4.346"), r"line 4.*energy"),
        (VALD_SHORT_STELLAR.replace("5529.9403", "nan      "), r"line 5"),
    ],
)
def test_what_cannot_be_true_is_refused(content, message, written):
    with pytest.raises(InputError, match=message):
        read_line_list(written(content))


def test_no_file_and_arguments_of_other_formats(tmp_path, written):
    with pytest.raises(InputError, match="check the path"):
        read_line_list(tmp_path / "nothing.vald")
    with pytest.raises(InputError, match="gf"):
        read_line_list(written(KURUCZ), gf="log")


@pytest.fixture(scope="module")
def gaia_eso(data):
    if not (data / GAIA_ESO).exists():
        pytest.skip(f"needs the full line list: {GAIA_ESO} in JAXSPEC_DATA")
    return read_line_list(data / GAIA_ESO, low=5355.0, high=5395.0)


def test_gaia_eso_list_as_shipped(gaia_eso):
    shipped = LineList.load(5355.0, 5395.0)

    def rows(lines):
        columns = (lines.wavelength, lines.element, lines.stage, lines.energy, lines.gamma_rad)
        # Isotopic fractions of neodymium differ in the third decimal.
        strengths = [f"{x + 1e-4:.1f}" for x in np.asarray(lines.log_gf, float)]
        keys = zip(*(np.asarray(c).tolist() for c in columns), strengths, strict=True)
        return dict(zip(keys, zip(lines.damping, lines.reach, strict=True), strict=True))

    full, part = rows(gaia_eso), rows(shipped)
    common = [key for key in part if key in full]
    assert len(common) >= 0.97 * len(part)
    np.testing.assert_allclose([full[k][0] for k in common], [part[k][0] for k in common], rtol=1e-6)
    ratio = np.array([full[k][1] / part[k][1] for k in common])
    assert ratio.min() > 0.99 and ratio.max() < 1.25


def test_spectra_with_the_read_list_are_those_with_the_shipped_one(gaia_eso):
    window = (Window(5365.0, 5385.0, 0.02),)
    read, shipped = (StellarModel.create(window, lines=x) for x in (gaia_eso, LineList.load()))

    def flux(model):
        return np.asarray(jax.jit(lambda labels: model(labels, jnp.float32(1.0)))(jnp.asarray(SUN)))

    assert np.abs(flux(read) - flux(shipped)).max() < 2e-3
    with pytest.raises(InputError, match="some near the window"):
        StellarModel.create((Window(6000.0, 6010.0, 0.02),), lines=gaia_eso)
    with pytest.raises(InputError, match="calibrated"):
        StellarModel.create(window, lines=gaia_eso, calibrated=True)


def test_example_of_the_guide(written, tmp_path, monkeypatch):
    """The guide's own code, on a sample: the iron line is deep where it should be."""
    guide = (Path(__file__).resolve().parents[3] / "docs" / "howto" / "line_lists.md").read_text()
    code = "\n".join(line[4:] for line in guide.splitlines() if line.startswith("    "))
    assert 0 < len([line for line in code.splitlines() if line.strip()]) <= 10
    written(VALD_SHORT_STELLAR, "my_lines.vald")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(code, names)
    flux, wavelength = np.asarray(names["flux"]), names["model"].wavelength
    assert wavelength[np.argmin(flux)] == pytest.approx(5371.489, abs=0.02)
    assert flux.min() < 0.3 and flux[:100].min() > 0.95
