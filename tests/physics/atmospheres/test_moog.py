"""MOOG's types: columns in their places, and column masses that are not given against the MARCS Sun's."""

import numpy as np
import pytest

from jaxspec.errors import InputError
from jaxspec.physics.atmospheres import read_atmosphere
from jaxspec.physics.atmospheres.moog import MOOG_COLUMNS, mass_from_opacity
from tests.physics.atmospheres.published import SUN, SUN_GRAVITY, SUN_LOG_TAU, moog_file

LOGG = float(np.log10(SUN_GRAVITY))
T, PE, PG, PRAD, OPACITY, DENSITY, WEIGHT, MASS = SUN.T
ELECTRONS = PE / (1.380649e-16 * T)
RANK, TAU, NOTHING = np.arange(1, len(SUN) + 1), 10**SUN_LOG_TAU, np.zeros(len(SUN))
# Each type's columns as the comments of Inmodel.f list them; and whether a wavelength stands before them.
COLUMNS = {
    "KURUCZ": ([MASS, T, PG, ELECTRONS, OPACITY, NOTHING, NOTHING], False),
    "KURTYPE": ([MASS, T, PG, ELECTRONS], True),
    "WEB2MARC": ([RANK, SUN_LOG_TAU, T, np.log10(PE), np.log10(PG), MASS], True),
    "BEGN": ([TAU, T, np.log10(PG), np.log10(PE), WEIGHT, OPACITY], False),
    "NEWMARCS": ([TAU, T, PE, PG, DENSITY, NOTHING + 1, OPACITY], True),
    "KUR-PADOVA": ([SUN_LOG_TAU, T, OPACITY, ELECTRONS, PG, DENSITY], True),
    "WEBMARCS": ([RANK, SUN_LOG_TAU, SUN_LOG_TAU, NOTHING, T, PE, PG, PRAD, NOTHING], True),
    "GENERIC": ([TAU, T, PG, ELECTRONS], True),
    "NEXTGEN": ([TAU, T, PG, PE, DENSITY, WEIGHT, NOTHING, NOTHING, OPACITY], True),
}
NEED_GRAVITY = ("WEBMARCS", "GENERIC", "NEXTGEN")
HYDROSTATIC = (PG + PRAD) / SUN_GRAVITY


def content_of(kind: str, end: str = "") -> str:
    columns, wavelength = COLUMNS[kind]
    return moog_file(kind, np.stack(columns, axis=1), wavelength, end)


@pytest.fixture
def read(tmp_path):
    def write_and_read(content: str, **options):
        path = tmp_path / "model.moog"
        path.write_text(content)
        return read_atmosphere(path, **options)

    return write_and_read


def test_every_type_is_tested():
    assert set(COLUMNS) == set(MOOG_COLUMNS)


@pytest.mark.parametrize("kind", COLUMNS)
def test_structure_of_the_sun(kind, read):
    """Masses from opacities meet hydrostatic equilibrium to 2 %, at the surface to 6 %; MARCS' own, a sum
    over its layers, lies up to 4 % higher."""
    model = read(content_of(kind), logg=LOGG if kind in NEED_GRAVITY else None)
    assert model.format == "moog" and model.geometry == "plane-parallel"
    np.testing.assert_allclose(model.atmosphere.temperature, T, rtol=1e-6)
    np.testing.assert_allclose(model.atmosphere.pressure, PG, rtol=2e-6)
    mass = np.asarray(model.atmosphere.column_mass)
    if "mass" in MOOG_COLUMNS[kind]:
        np.testing.assert_allclose(mass, MASS, rtol=1e-6)
    else:
        np.testing.assert_allclose(mass, HYDROSTATIC, rtol=0.06)
        np.testing.assert_allclose(mass[5:], HYDROSTATIC[5:], rtol=0.02)
        np.testing.assert_allclose(mass[5:], MASS[5:], rtol=0.05)


def test_mass_from_opacity_is_exact_for_power_laws():
    """With opacity = m, tau = m^2 / 2; with constant opacity, tau is proportional to m."""
    mass = np.geomspace(1e-3, 10, 12)
    np.testing.assert_allclose(mass_from_opacity(mass**2 / 2, mass), mass, rtol=1e-12)
    np.testing.assert_allclose(mass_from_opacity(3.0 * mass, np.full(12, 3.0)), mass, rtol=1e-12)


def test_what_is_said_beside_the_structure(read):
    model = read(content_of("KURUCZ"))
    assert (model.m_h, model.vmic) == (-0.25, 1.5)
    assert np.isnan([model.teff, model.logg, model.alpha_m]).all()
    assert model.abundances[2] == 3.3 and np.isnan(np.delete(model.abundances, 2)).all()
    in_cm = read(content_of("KURUCZ", "     2.00e+05\nNATOMS        0    0.10\nNMOL          0\n"))
    assert in_cm.vmic == pytest.approx(2.0) and in_cm.abundances is None and in_cm.m_h == 0.1
    layered = read(content_of("KURUCZ", "1.0 1.0 1.0 1.1 1.2 1.3\n2.0 2.1\nNATOMS        0    0.10\n"))
    assert np.isnan(layered.vmic)


def test_webmarcs_without_radiation(read):
    """Some programs write no more than the seven columns that MOOG reads."""
    rows = np.stack(COLUMNS["WEBMARCS"][0][:7], axis=1)
    model = read(moog_file("WEBMARCS", rows, wavelength=True), logg=LOGG)
    np.testing.assert_allclose(model.atmosphere.column_mass, PG / SUN_GRAVITY, rtol=1e-5)
    assert model.logg == LOGG


@pytest.mark.parametrize("kind", NEED_GRAVITY)
def test_types_without_column_mass_need_the_gravity(kind, read):
    with pytest.raises(
        InputError, match=f"type {kind}, which has no column mass .*the surface gravity; give logg="
    ):
        read(content_of(kind))


@pytest.mark.parametrize(
    ("kind", "line", "edit", "message"),
    [
        ("KURUCZ", 6, lambda s: s.replace("E", "F", 1), "line 6: found .*expected numbers of layer 3 of 36"),
        ("KURUCZ", 6, lambda s: s[15:], "line 6: found 6 columns; expected 7 as above"),
        ("KURUCZ", 3, lambda s: "NTAU      many", "line 3: .*expected the number of layers from column"),
        ("KURUCZ", 3, lambda s: "NTAU          35", "line 39: .*the microturbulence after 35 layers"),
        ("KURUCZ", 3, lambda s: "NTAU          37", "line 40: found 1 columns; expected 7 as above"),
        ("KURUCZ", 40, lambda s: "slow", "line 40: .*expected the microturbulence after 36 layers"),
        ("KURUCZ", 41, lambda s: "NATOMS    one", "line 41: .*expected the number of abundances"),
        ("KURUCZ", 42, lambda s: "  93.0 3.0", "line 42: found element 93; expected 1 to 92"),
        ("BEGN", 9, lambda s: s.replace("1.2670000E+00", "1.2670000E+01"), "line 9: found mean molecular"),
        ("BEGN", 9, lambda s: s[:-14] + "-5.213200E-03", "line 9: .*0.0001, opacity -0.0052"),
        ("BEGN", 10, lambda s: s.replace("1.5848932E-04", "9.9E-05"), "line 10: .*grows inward"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_its_line(kind, line, edit, message, read):
    lines = content_of(kind).splitlines()
    changed = edit(lines[line - 1])
    assert changed != lines[line - 1]
    lines[line - 1] = changed
    with pytest.raises(InputError, match=message):
        read("\n".join(lines) + "\n")


def test_truncated_files_are_refused(read):
    lines = content_of("KURUCZ").splitlines()
    for n, message in (
        (20, "numbers of layer 18 of 36"),
        (39, "the microturbulence"),
        (40, "no line with '.*NATOMS"),
    ):
        with pytest.raises(InputError, match=message):
            read("\n".join(lines[:n]) + "\n")


def test_other_types_are_named(read):
    with pytest.raises(InputError, match=r"line 1: found 'PHOENIX'; expected KURUCZ, .*convert"):
        read("PHOENIX\n", format="moog")
