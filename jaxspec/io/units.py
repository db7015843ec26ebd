"""Units of fluxes and errors, in any spelling that astropy knows."""

import re
import warnings

from astropy import units

from jaxspec.errors import InputError

# Spellings that astropy does not know.
SPELLINGS = {
    "counts": "count",
    "cts": "count",
    "electrons": "electron",
    "ergs": "erg",
}
FORMATS = ("generic", "fits", "ogip", "cds", "vounit")


def parse(text: str) -> units.UnitBase | None:
    """The unit of a text, or None where no format of astropy understands it; case does not matter."""
    plain = re.sub(r"[A-Za-z]+", lambda m: SPELLINGS.get(m[0].lower(), m[0]), text.strip())
    # An "A" in a spectrum's unit is no ampere.
    length = r"(?i)\b(angstroms?|angstroem|ang|aa|a)(?=-?\d|\b)"
    first = re.sub(length, "angstrom", plain.replace("Å", "angstrom"))
    for item in dict.fromkeys((first, first.lower(), plain)):
        for name in FORMATS:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    return units.Unit(item, format=name)
                except Exception:  # ValueError, TypeError, and what its parsers raise besides
                    continue
    return None


def factor(unit: str, flux_unit: str, power: int, where: str) -> float:
    """Factor from an array in `unit` to the flux's unit to `power` (error 1, variance 2, inverse
    variance -2); 1 where either says nothing.

    Raises `InputError` for a unit of another kind, or of unknown meaning and not written as the flux's is.
    """
    if not unit or not flux_unit:
        return 1.0
    same = re.sub(r"\s", "", unit.lower()) == re.sub(r"\s", "", flux_unit.lower())
    if same and power == 1:
        return 1.0
    found, flux = parse(unit), parse(flux_unit)
    if found is not None and flux is not None and flux != units.dimensionless_unscaled:
        wanted = flux**power
        if found.is_equivalent(wanted):
            scale = float(found.to(wanted))
            return 1.0 if abs(scale - 1.0) < 1e-9 else scale
    # Many writers copy the flux's unit to the variance.
    if same or found == units.dimensionless_unscaled or found == flux:
        return 1.0
    if power != 1 and (found is None or flux is None):
        plain = flux_unit.replace(" ", "").lower()
        if plain in unit.replace(" ", "").lower():  # (unit)**2, 1/(unit)^2
            return 1.0
    raise InputError(
        where,
        f"errors in {unit!r} for a flux in {flux_unit!r}",
        "an error in the unit of the flux",
        "correct the units in the header: give both the same",
    )
