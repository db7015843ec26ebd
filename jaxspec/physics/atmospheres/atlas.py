"""ATLAS9 and ATLAS12 files.

Cards: Kurucz (1970, SAO Special Report 309) and the ATLAS Cookbook of Sbordone & Bonifacio. Units: Castelli &
Kurucz (1994, A&A 281, 817), tables 1a to 5a.
"""

import re

import numpy as np
from jaxtyping import Float

from jaxspec.physics.atmospheres.text import N_ELEMENTS, NAN, NUMBER, AtmosphereFile, Text, make_atmosphere

COLUMNS = ["RHOX", "T", "P", "XNE", "ABROSS", "ACCRAD", "VTURB"]
CARD = re.compile(r"READ DECK6\s*(\d+)\s+(.*)")


def read_atlas(text: Text) -> AtmosphereFile:
    """The one model of an ATLAS file; see `read_atmosphere`."""
    heads = [i for i, line in enumerate(text.lines) if line.startswith("TEFF")] or [text.find("^TEFF")]
    if len(heads) > 1:
        found = f"the second of {len(heads)} models"
        raise text.wrong(heads[1], found, "one model a file", "cut the one that you want out of the grid")
    head = re.match(r"TEFF\s*(\d+\.?\d*)\s+GRAVITY\s*(-?\d+\.?\d*)\s", text.lines[heads[0]] + " ")
    if head is None:
        raise text.wrong(heads[0], text.quoted(heads[0]), "TEFF and GRAVITY, each with a number")
    card = text.find("^READ DECK6")
    layers = read_atlas_layers(text, card)
    scale = re.search(r"ABUNDANCE SCALE\s+(\d*\.\d+)", "\n".join(text.lines[:card]))
    m_h = float(np.log10(float(scale[1]))) if scale and float(scale[1]) > 0 else NAN
    return AtmosphereFile(
        make_atmosphere(text, card + 1, *layers[:, :3].T),
        "atlas",
        "plane-parallel",
        teff=float(head[1]),
        logg=float(head[2]),
        m_h=m_h,
        vmic=float(layers[0, 6]) / 1e5 if np.ptp(layers[:, 6]) == 0 else NAN,
        abundances=_abundances(text.lines[:card], m_h if np.isfinite(m_h) else 0.0),
    )


def read_atlas_layers(text: Text, i: int) -> Float[np.ndarray, "layers columns"]:
    """The layers under the card `READ DECK6` in line `i`.

    Columns: column mass (g cm^-2), T (K), gas pressure (dyn cm^-2), electrons (cm^-3), Rosseland opacity
    (cm^2 g^-1), radiative acceleration (cm s^-2), microturbulence (cm s^-1), and more if the file has them.
    Raises `InputError` for anything but the announced number of layers.
    """
    card = CARD.match(text.line(i))
    if card is None or re.split(r"[,\s]+", card[2].strip())[: len(COLUMNS)] != COLUMNS:
        raise text.wrong(i, text.quoted(i), f"READ DECK6, a number of layers and {','.join(COLUMNS)}")
    table = text.table(i + 1, int(card[1]), len(COLUMNS))
    after = i + 1 + len(table)
    line = text.line(after)
    if len(NUMBER.findall(line)) >= len(COLUMNS) and not NUMBER.sub("", line).strip():
        expected = f"no more than {card[1]} layers, as announced"
        raise text.wrong(after, "another layer", expected, "correct the number of layers")
    return table


def _abundances(lines: list[str], scale: float) -> Float[np.ndarray, " 92"] | None:
    """A(X) from the cards; `scale` (dex) applies to all but H and He.

    The cards give the fraction of all nuclei, of H and He as it is and of others its logarithm; the ABUNDANCE
    TABLE of ATLAS12 adds a change (dex) to each.
    """
    values = np.full(N_ELEMENTS, NAN)
    cards = " ".join(line.split("ABUNDANCE CHANGE")[1] for line in lines if "ABUNDANCE CHANGE" in line)
    given = [(*pair, "") for pair in re.findall(r"(\d+)(?:\s+|(?=-))(-?\d+\.\d+)", cards)]
    table = "\n".join(lines).partition("ABUNDANCE TABLE")[2]
    given += re.findall(r"(\d+)[A-Z][a-z]?\s*(-?\d+\.\d+)(?:\s+(-?\d+\.\d+)(?!\S))?", table)
    for element, value, change in given:
        if 1 <= int(element) <= N_ELEMENTS:
            values[int(element) - 1] = float(value) + float(change or 0.0)
    if not values[0] > 0:
        return None
    logarithm = np.log10(np.maximum(values[:2], 1e-20))
    return np.concatenate([logarithm, values[2:] + scale]) - logarithm[0] + 12.0
