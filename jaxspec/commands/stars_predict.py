"""Ask the model of stars about Gaia XP spectra, photometry or labels.

INPUT is a file of the Gaia archive (XP_CONTINUOUS or XP_SAMPLED), or a table with columns such as bp_rp or
teff. Writes one row a star: the median, error and 68 % interval of each quantity, and flags.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from astropy.table import QTable

from jaxspec.errors import InputError
from jaxspec.foundation.model import FoundationModel
from jaxspec.foundation.reading import read_stars
from jaxspec.io.results import write_table
from jaxspec.runs import atomically

log = logging.getLogger(__name__)

INPUT, OUTPUT = "stars", "file"
SUFFIXES = {".fits": "fits", ".ecsv": "ascii.ecsv", ".csv": "ascii.csv"}


@dataclass(frozen=True)
class Settings:
    """Settings of a prediction.

    Attributes:
        stars: file of spectra of the Gaia archive, or a table of quantities.
        ask: quantities, with commas between them.
        model: folder of a model; none: the one in the package.
    """

    stars: str
    ask: str | tuple[str, ...] = "teff,logg,fe_h,alpha_m"
    model: str | None = None


def run(settings: Settings, output: Path) -> QTable:
    """Write the table of answers and return it."""
    output = Path(output)
    if output.suffix.lower() not in SUFFIXES:
        raise InputError(
            "output", f"suffix {output.suffix!r}", f"one of {', '.join(SUFFIXES)}", "write -o stars.fits"
        )
    model = FoundationModel.load(settings.model)
    stars = read_stars(settings.stars, model.basis)
    unknown = [name for name in stars.names if name not in model.names]
    if unknown:
        log.warning("columns that the model does not know are not used: %s", ", ".join(unknown))
    table = model.predict(stars.without(unknown), names(settings.ask)).table()
    flagged = int((table["flags"] != 0).sum())
    log.info("%d stars, %d of them flagged", len(table), flagged)
    how = SUFFIXES[output.suffix.lower()]
    if how == "fits":
        write_table(output, table)
    else:
        atomically(output, lambda partial: table.write(partial, format=how, overwrite=True))
    return table


def names(ask: str | tuple[str, ...]) -> tuple[str, ...]:
    """The quantities asked for, as a tuple."""
    parts = ask.split(",") if isinstance(ask, str) else ask
    return tuple(part.strip() for part in parts if part.strip())
