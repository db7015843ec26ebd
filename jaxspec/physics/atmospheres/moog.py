"""Model atmospheres as MOOG reads them (Sneden & Sakari 2019, WRITEMOOG; columns as in its `Inmodel.f`)."""

import numpy as np
from jaxtyping import Float

from jaxspec.errors import InputError
from jaxspec.physics.atmospheres.text import N_ELEMENTS, NAN, NUMBER, AtmosphereFile, Text, make_atmosphere

# `tau` is the optical depth in which `opacity` (cm^2 g^-1) is measured; a dash stands for what is not used.
MOOG_COLUMNS = {
    "KURUCZ": "mass temperature pressure",
    "KURTYPE": "mass temperature pressure",
    "WEB2MARC": "- - temperature - pressure mass",
    "BEGN": "tau temperature pressure - weight opacity",
    "NEWMARCS": "tau temperature - pressure - - opacity",
    "KUR-PADOVA": "tau temperature opacity - pressure",
    "WEBMARCS": "- - - - temperature - pressure radiation turbulence",
    "GENERIC": "- temperature pressure",
    "NEXTGEN": "- temperature pressure - - weight",
}
OPTIONAL = ("radiation", "turbulence")
WITHOUT_WAVELENGTH = ("KURUCZ", "BEGN")


def read_moog(text: Text, logg: float | None) -> AtmosphereFile:
    """A model of one of MOOG's types; see `read_atmosphere`."""
    kind = (text.line(0).split() or [""])[0].upper()
    if kind not in MOOG_COLUMNS:
        raise text.wrong(
            0, text.quoted(0), ", ".join(MOOG_COLUMNS), "convert the model to one of these types"
        )
    layers = int(_labelled(text, 2, 1, "the number of layers")[0])
    start = 3 if kind in WITHOUT_WAVELENGTH else 4
    names = MOOG_COLUMNS[kind].split()
    table = text.table(start, layers, len([name for name in names if name not in OPTIONAL]))
    column = {name: values for name, values in zip(names, table.T, strict=False) if name != "-"}
    if column["pressure"][-1] < 20:  # a logarithm: no star's deepest layer is so thin
        column["pressure"] = 10.0 ** column["pressure"]
    mass = _mass(text, kind, start, column, logg)
    atmosphere = make_atmosphere(
        text, start, mass, column["temperature"], column["pressure"], column.get("weight")
    )
    vmic = _vmic(text, start + layers, layers)
    m_h, abundances = _abundances(text, start + layers + 1)
    return AtmosphereFile(
        atmosphere,
        "moog",
        "plane-parallel",
        logg=NAN if logg is None else logg,
        m_h=m_h,
        vmic=vmic,
        abundances=abundances,
    )


def _labelled(text: Text, i: int, count: int, expected: str) -> list[float]:
    """The numbers after a label of ten characters."""
    words = text.line(i)[10:].split()[:count]
    if len(words) < count or not all(NUMBER.fullmatch(word) for word in words):
        raise text.wrong(i, text.quoted(i), f"{expected} from column 11 on")
    return [float(word) for word in words]


def _mass(text: Text, kind: str, start: int, column: dict[str, np.ndarray], logg: float | None) -> np.ndarray:
    """Column mass (g cm^-2): as given, from optical depth and opacity, or from pressure and gravity."""
    if "mass" in column:
        return column["mass"]
    if "tau" in column:
        tau = 10.0 ** column["tau"] if column["tau"][0] < 0 else column["tau"]
        good = (column["opacity"] > 0) & (tau > 0) & (np.diff(tau, prepend=0.0) > 0)
        for i in np.flatnonzero(~good).tolist():
            found = f"optical depth {column['tau'][i]:g}, opacity {column['opacity'][i]:g}"
            raise text.wrong(start + i, found, "a positive opacity, and optical depth that grows inward")
        return mass_from_opacity(tau, column["opacity"])
    if logg is None:
        found = f"a model of type {kind}, which has no column mass and no opacity"
        raise InputError(text.where, found, "the surface gravity", "give logg=")
    return (column["pressure"] + sum(column[name] for name in OPTIONAL if name in column)) / 10.0**logg


def mass_from_opacity(
    tau: Float[np.ndarray, " layers"], opacity: Float[np.ndarray, " layers"]
) -> Float[np.ndarray, " layers"]:
    """Column mass (g cm^-2), the integral of d tau / opacity (cm^2 g^-1).

    Between layers, and above the first, tau / opacity is a power law of tau; above the first its exponent is
    0.1 or more, without which the integral might not exist.
    """
    integrand, width = tau / opacity, np.diff(np.log(tau))  # of d ln tau
    slope = np.diff(np.log(integrand)) / width
    flat = np.abs(slope) < 1e-6
    steps = np.where(flat, integrand[1:] * width, np.diff(integrand) / np.where(flat, 1.0, slope))
    return integrand[0] / max(slope[0], 0.1) + np.concatenate([[0.0], np.cumsum(steps)])


def _vmic(text: Text, i: int, layers: int) -> float:
    """Microturbulence (km/s), NaN if it is given layer by layer; MOOG takes numbers from 100 on for cm/s."""
    expected = f"the microturbulence after {layers} layers"
    speeds = np.array(text.numbers(i, expected))
    if speeds.min() < 0 or speeds.max() > 100 * speeds.min():
        raise text.wrong(i, text.quoted(i), expected, "correct the number of layers")
    if np.ptp(speeds) > 0:
        return NAN
    return float(speeds[0]) * (1.0 if speeds[0] < 100 else 1e-5)


def _abundances(text: Text, start: int) -> tuple[float, Float[np.ndarray, " 92"] | None]:
    """The metallicity (dex), and A(X) of the elements that are given apart."""
    i = text.find("(?i)NATOMS", start)
    count, m_h = _labelled(text, i, 2, "the number of abundances and the metallicity")
    pairs: list[float] = []
    while len(pairs) < 2 * count:
        i += 1
        pairs += text.numbers(i, f"elements and abundances from the {len(pairs) // 2 + 1}. of {count:g} on")
    values = np.full(N_ELEMENTS, NAN)
    for element, value in zip(pairs[::2], pairs[1::2], strict=False):
        if not 1 <= element <= N_ELEMENTS:
            raise text.wrong(i, f"element {element:g}", f"1 to {N_ELEMENTS}")
        values[int(element) - 1] = value
    return m_h, values if count else None
