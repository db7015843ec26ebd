import pytest

from jaxspec.errors import InputError
from jaxspec.io.names import Role, understand
from jaxspec.io.units import factor

NAMES = {
    Role.WAVE: "WAVE wavelength lambda LAM wl spectral_axis wave_air WAVELENGTH(nm) waveobs",
    Role.LOG_WAVE: "loglam log_wave log10lambda",
    Role.FLUX: "FLUX flux_reduced NORM_FLUX FLUX_1 FLUX2 SCI DATA spectrum counts",
    Role.SIGMA: "ERR ERROR SIGMA STD UNCERT UNCERTAINTY FLUX_ERROR flux_err e_flux fluxerr ERR_REDUCED",
    Role.VARIANCE: "VAR VARIANCE flux_var sigma^2 err**2 STAT sigma_sq",
    Role.IVAR: "IVAR INVVAR inverse_variance flux_ivar 1/sigma^2 InverseVariance",
    Role.MASK: "MASK QUAL DQ bad_pixels flags QUAL_REDUCED pixmask",
    Role.GOOD: "good good_pixels",
    Role.OTHER: "SKY sky_err wave_err BGFLUX_REDUCED model_flux SNR continuum WEIGHT",
    None: "HD1234 BLAH ERR2 COL3",
}


@pytest.mark.parametrize(("role", "name"), [(r, n) for r, names in NAMES.items() for n in names.split()])
def test_role_of_a_name_in_any_case(role, name):
    assert understand(name).role is role
    assert understand(name.lower()).role is role and understand(name.upper()).role is role


def test_set_unit_and_medium_of_a_name():
    assert understand("FLUX_REDUCED").set == understand("err_reduced").set == "reduced"
    assert understand("FLUX").set == understand("FLUX_ERROR").set == ""
    assert understand("FLUX2").set != understand("FLUX_3").set
    assert (understand("wave_vac_nm").medium, understand("wave_vac_nm").unit) == ("vacuum", "nm")
    assert understand("lambda [Angstrom]").unit == "Angstrom"


@pytest.mark.parametrize(
    ("unit", "flux", "power", "expected"),
    [
        ("erg cm**(-2) s**(-1) angstrom**(-1)", "erg/cm**2/s/angstrom", 1, 1.0),
        ("1E-17 erg/cm^2/s/Ang", "erg/s/cm2/Angstrom", 1, 1e-17),
        ("W m-2 um-1", "erg/s/cm2/A", 1, 0.1),
        ("ADU", "adu", 1, 1.0),
        ("electron", "electrons", 1, 1.0),
        ("mJy", "Jy", 1, 1e-3),
        ("mJy2", "Jy", 2, 1e-6),
        ("1/adu**2", "adu", -2, 1.0),
        ("adu", "adu", 2, 1.0),
        ("", "adu", 1, 1.0),
        ("relative", "Relative", 1, 1.0),
    ],
)
def test_one_unit_in_two_spellings_is_one_unit(unit, flux, power, expected):
    assert factor(unit, flux, power, "file") == pytest.approx(expected)


def test_units_of_two_kinds_are_refused():
    with pytest.raises(InputError, match=r"errors in 'erg' for a flux in 'adu'"):
        factor("erg", "adu", 1, "file")
