"""Solar abundance scales: what "relative to the Sun" meant in a paper.

A table of [X/H] depends on the solar A(X) that its authors subtracted; two tables on different scales differ
by a constant for each element that has nothing to do with the stars.
"""

from collections.abc import Mapping

from jaxspec.errors import InputError

# A(X) = log10(N_X / N_H) + 12 of the solar photosphere.
# Anders & Grevesse (1989, Geochim. Cosmochim. Acta 53, 197), table 2. Many who cite it use A(Fe) = 7.51 or
# 7.52 instead; give those numbers as a mapping.
ANDERS1989 = {
    "fe_h": 7.67,
    "al_h": 6.47,
    "mg_h": 7.58,
    "ca_h": 6.36,
    "ni_h": 6.25,
    "ti_h": 4.99,
    "si_h": 7.55,
}
# Grevesse & Sauval (1998, Space Sci. Rev. 85, 161), table 1.
GREVESSE1998 = {
    "fe_h": 7.50,
    "al_h": 6.47,
    "mg_h": 7.58,
    "ca_h": 6.36,
    "ni_h": 6.25,
    "ti_h": 5.02,
    "si_h": 7.55,
}
# Asplund, Grevesse & Sauval (2005, ASP Conf. Ser. 336, 25), table 1: the scale of APOGEE up to DR12 (Garcia
# Perez et al. 2016).
ASPLUND2005 = {
    "fe_h": 7.45,
    "al_h": 6.37,
    "mg_h": 7.53,
    "ca_h": 6.31,
    "ni_h": 6.23,
    "ti_h": 4.90,
    "si_h": 7.51,
}
# Grevesse, Asplund & Sauval (2007, Space Sci. Rev. 130, 105), the scale of the MARCS models and of the
# Gaia-ESO analysis.
GREVESSE2007 = {
    "fe_h": 7.45,
    "al_h": 6.37,
    "mg_h": 7.53,
    "ca_h": 6.31,
    "ni_h": 6.23,
    "ti_h": 4.90,
    "si_h": 7.51,
}
# Asplund, Grevesse, Sauval & Scott (2009, ARA&A 47, 481), table 1.
ASPLUND2009 = {
    "fe_h": 7.50,
    "al_h": 6.45,
    "mg_h": 7.60,
    "ca_h": 6.34,
    "ni_h": 6.22,
    "ti_h": 4.95,
    "si_h": 7.51,
}
# Asplund, Amarsi & Grevesse (2021, A&A 653, A141), table 2.
ASPLUND2021 = {
    "fe_h": 7.46,
    "al_h": 6.43,
    "mg_h": 7.55,
    "ca_h": 6.30,
    "ni_h": 6.20,
    "ti_h": 4.97,
    "si_h": 7.51,
}
SOLAR_SCALES: dict[str, Mapping[str, float]] = {
    "anders1989": ANDERS1989,
    "grevesse1998": GREVESSE1998,
    "asplund2005": ASPLUND2005,
    "grevesse2007": GREVESSE2007,
    "asplund2009": ASPLUND2009,
    "asplund2021": ASPLUND2021,
}


def solar_scale(scale: str | Mapping[str, float], where: str = "argument solar") -> dict[str, float]:
    """A(X) by label name of a scale given by name, or as a mapping of label (`mg_h`) to A(X).

    Raises `InputError` for a name that is not in `SOLAR_SCALES` and for a mapping with other than numbers.
    """
    if isinstance(scale, str):
        if scale not in SOLAR_SCALES:
            raise InputError(
                where,
                repr(scale),
                f"one of {', '.join(SOLAR_SCALES)}",
                "correct the name or give a mapping of labels to A(X)",
            )
        return dict(SOLAR_SCALES[scale])
    for name, value in scale.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0.0 < value < 12.0:
            raise InputError(
                f"{where}, {name}", repr(value), "A(X) = log10(N_X/N_H) + 12", "correct the number"
            )
    return {name: float(value) for name, value in scale.items()}
