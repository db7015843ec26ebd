"""From the rows of a file to a `LineList`: checked, in air, without what jaxspec cannot compute."""

import logging
from typing import Literal

import numpy as np

from jaxspec.errors import InputError
from jaxspec.physics.constants import ATOMIC_WEIGHTS
from jaxspec.physics.linelists.reach import line_reach
from jaxspec.physics.linelists.text import MOLECULE, RawLines, Row, Text, isotope_fractions
from jaxspec.physics.lines import LineList
from jaxspec.spectra import vacuum_to_air

log = logging.getLogger(__name__)

Policy = Literal["refuse", "skip"]
HYDROGEN = 1
STAGES = 3  # of ionisation that `AtomicData` knows: I to III
RANGES = {  # field: lowest, highest, unit, what else the number may be
    "wavelength": (2000.0, 1e6, "A", "in another unit; or give low= and high=, in A, to read a part"),
    "energy": (0.0, 200.0, "eV", "in cm^-1"),
    "log_gf": (-100.0, 10.0, "dex", "damaged"),
    "damping": (-50.0, 1e5, "as log10 of a width or as sigma.alpha", "damaged"),
    "gamma_rad": (0.0, 1e16, "s^-1", "damaged"),
}


def clean(
    raw: RawLines, text: Text, low: float, high: float, molecules: Policy, ions: Policy, unsoeld: float
) -> LineList:
    """The lines between two air wavelengths (A), in order of wavelength; see `read_line_list`."""
    rows = _in_air(raw, text, low, high)
    if not rows:
        raise InputError(
            text.where,
            f"no line between {low:g} and {high:g} A",
            "lines in the range",
            "check the range and the file's unit of wavelength",
        )
    _check_numbers(rows, text)
    kinds = [_kind(row) for row in rows]
    for kind, policy, argument in (
        ("molecules", molecules, "molecules"),
        ("ions or elements without atomic data", ions, "ions"),
    ):
        found = [row for row, k in zip(rows, kinds, strict=True) if k == kind]
        if found and policy == "refuse":
            raise text.refuse(
                found[0].number,
                f"lines of atoms up to uranium, neutral to twice ionised ({len(found)} lines are of {kind})",
                f'give {argument}="skip" to synthesise without them, or remove them from the list',
            )
        if found:
            log.warning("%s: %d lines of %s skipped", text.where, len(found), kind)
    n_hydrogen = kinds.count("hydrogen")
    if n_hydrogen:
        log.info(
            "%s: %d lines of hydrogen skipped: the synthesis has its own Balmer and Paschen lines",
            text.where,
            n_hydrogen,
        )
    rows = [row for row, kind in zip(rows, kinds, strict=True) if kind == "atom"]
    if not rows:
        raise InputError(text.where, "no line of a metal", "at least one", "check the range and the file")
    return _line_list(sorted(rows, key=lambda row: row.wavelength), text, raw.scaled, unsoeld)


def _in_air(raw: RawLines, text: Text, low: float, high: float) -> list[Row]:
    rows = raw.rows
    for row in rows:
        if not row.wavelength > 0 or not np.isfinite(row.wavelength):
            raise text.refuse(row.number, "a positive wavelength")
    if raw.vacuum:
        wavelength = np.array([row.wavelength for row in rows])
        # Below 2000 A there are no air wavelengths: such rows stay as they are, and are refused by range.
        optical = wavelength > 2000.7
        wavelength[optical] = vacuum_to_air(wavelength[optical])
        rows = [row._replace(wavelength=float(w)) for row, w in zip(rows, wavelength, strict=True)]
    return [row for row in rows if low <= row.wavelength <= high]


def _check_numbers(rows: list[Row], text: Text) -> None:
    for field, (lowest, highest, unit, otherwise) in RANGES.items():
        values = np.array([getattr(row, field) for row in rows])
        bad = np.flatnonzero(~((values >= lowest) & (values <= highest)))
        if len(bad):
            raise text.refuse(
                rows[bad[0]].number,
                f"{field} from {lowest:g} to {highest:g} {unit}, not {values[bad[0]]:g}",
                f"correct the number: it may be {otherwise} ({len(bad)} such lines)",
            )


def _kind(row: Row) -> str:
    if row.z == MOLECULE:
        return "molecules"
    if not 0 <= row.stage < min(STAGES, row.z + 1) or row.z > len(ATOMIC_WEIGHTS):
        return "ions or elements without atomic data"
    return "hydrogen" if row.z == HYDROGEN else "atom"


def _line_list(rows: list[Row], text: Text, scaled: bool, unsoeld: float) -> LineList:
    log_gf = np.array([row.log_gf for row in rows])
    if not scaled:
        fractions = isotope_fractions()
        for i, row in enumerate(rows):
            if row.isotope:
                fraction = fractions.get((row.z, row.isotope))
                if fraction is None:
                    raise text.refuse(
                        row.number,
                        f"an isotope that occurs on Earth, not mass {row.isotope} of element {row.z}",
                        "correct the species, or give the line as one of the natural mixture",
                    )
                log_gf[i] += np.log10(fraction)
    damping = np.array([row.damping for row in rows], np.float32)
    lines = LineList(
        wavelength=np.array([row.wavelength for row in rows]),
        element=np.array([row.z - 1 for row in rows], np.int16),
        stage=np.array([row.stage for row in rows], np.int16),
        energy=np.array([row.energy for row in rows], np.float32),
        log_gf=log_gf.astype(np.float32),
        damping=np.where(damping == 0, np.float32(unsoeld), damping),
        gamma_rad=np.array([row.gamma_rad for row in rows], np.float32),
        reach=np.zeros(len(rows), np.float32),
    )
    return LineList(**{**lines.__dict__, "reach": line_reach(lines)})
