"""Identifiers of stars: designations of each kind in one canonical form, and positions.

Two tables that write the same star differently ("HIP 57051", 57051, "HIP057051") then agree.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Shaped

from jaxspec.catalogues.cells import is_blank, is_fill, is_nameless
from jaxspec.errors import InputError

# Kinds of identifiers, the most trustworthy first: the order in which stars are matched. Gaia's source_id
# changes between DR2 and DR3 for a few stars in a hundred, so that the two are different kinds.
KINDS = ("gaia", "gaia_dr2", "hip", "tmass", "name")
# The Hipparcos catalogue's numbers run from 1 to 118322, with a few up to 120404 in its input catalogue.
LAST_HIP = 120404
_HIP = re.compile(r"^(?:HIP)?\s*0*(\d+)(?:\.0)?\s*([A-Za-z]?)$", re.IGNORECASE)
_GAIA = re.compile(r"^(?:GAIA)?[\s_:-]*(?:(E?DR\d)[\s_:-])?[\s_:-]*0*(\d+)$", re.IGNORECASE)
# EDR3 and DR3 share their source_ids; those of DR1 and of releases to come are no kind of ours.
_RELEASES = {"DR3": "gaia", "EDR3": "gaia", "DR2": "gaia_dr2"}
_RELEASE_IN_WORDS = re.compile(r"(?:gaia|g)?[\s_]*(e?dr)[\s_]*([1-9])(?!\d)", re.IGNORECASE)
_TMASS = re.compile(r"^(?:2MASS|2M|AP)?\s*J?(\d{8}[+-]\d{7})[a-z]?$", re.IGNORECASE)


def release(text: str) -> str | None:
    """The release that a Gaia designation names, "DR2" of "Gaia DR2 3592683243377269248"; None for none."""
    match = _GAIA.match(text.strip())
    return match[1].upper() if match and match[1] else None


def check_release(kind: str, column: str, description: str, where: str) -> None:
    """Raises `InputError` for a column whose name or description says that it is of another Gaia release than
    its kind."""
    for text in (column, description):
        said = {"".join(parts).upper() for parts in _RELEASE_IN_WORDS.findall(text)}
        kinds = {_RELEASES.get(name) for name in said if name in (*_RELEASES, "DR1", "DR4", "DR5")}
        if not kinds:
            continue
        if kind not in kinds:
            other = next((k for k in kinds if k is not None), "name")
            raise InputError(
                f"{where}.{kind}",
                f"column {column!r}, which says {' and '.join(sorted(said))}",
                f"source_ids of {'DR2' if kind == 'gaia_dr2' else 'DR3'}: they differ between releases",
                f"write {other}: {column} instead",
            )
        return


def canonical(kind: str, text: str, where: str = "identifier") -> str:
    """An identifier in the form in which it is compared; "" for none ("Unknown", "-", 999999).

    - `hip`: the number, with the letter of a component other than A ("HIP 71681 B" gives "71681B").
    - `gaia`, `gaia_dr2`: the number. `tmass`: "03242060+0758421". `name`: capitals without blanks.

    Raises `InputError` for what cannot be one of that kind, a source_id of another release included.
    """
    text = text.strip()
    if is_nameless(text):
        return ""
    if kind == "name":
        return re.sub(r"[\s_]+", "", text).upper()
    match = {"hip": _HIP, "gaia": _GAIA, "gaia_dr2": _GAIA, "tmass": _TMASS}[kind].match(text)
    if match and kind == "hip":
        number, component = int(match[1]), match[2].upper()
        if number == 0 or (number > LAST_HIP and is_fill(match[1])):
            return ""
        if number > LAST_HIP:
            raise InputError(
                where, repr(text), f"a Hipparcos number, 1 to {LAST_HIP}", "is this the right column?"
            )
        return f"{number}{'' if component == 'A' else component}"
    if match and kind == "tmass":
        return match[1] if re.search("[1-9]", match[1]) else ""
    if match and (match[1] is None or _RELEASES.get(match[1].upper()) == kind):
        return "" if is_fill(match[2]) or is_nameless(match[2]) else match[2]
    if match:
        other = _RELEASES.get(match[1].upper(), "name")
        raise InputError(
            where,
            repr(text),
            f"a source_id of Gaia {'DR2' if kind == 'gaia_dr2' else 'DR3'}: they differ between releases",
            f"give the column as identifiers.{other}",
        )
    expected = {
        "hip": "a Hipparcos number such as 57051 or 'HIP 57051 B'",
        "gaia": "a Gaia source_id, an integer",
        "gaia_dr2": "a Gaia source_id, an integer",
        "tmass": "a 2MASS designation such as 03242060+0758421",
    }[kind]
    raise InputError(where, repr(text), expected, "correct the cells, or give the column as identifiers.name")


def recognise(name: str) -> tuple[str, str]:
    """Kind and canonical form of a star's name: "HIP 57051" is a Hipparcos number whatever column it is
    in."""
    text = name.strip()
    upper = text.upper()
    if upper.startswith("HIP") and re.fullmatch(r"\s*\d+\s*[A-Za-z]?", text[3:]):
        return "hip", canonical("hip", text)
    if upper.startswith("GAIA") and release(text) in _RELEASES:
        kind = _RELEASES[str(release(text))]
        return kind, canonical(kind, text)
    if re.fullmatch(r"(2MASS\s*J?|2M)\d{8}[+-]\d{7}", upper):
        return "tmass", canonical("tmass", text)
    return "name", canonical("name", text)


@dataclass(frozen=True)
class Identifiers:
    """Identifiers and positions of the n rows of a table.

    - `keys`: for each kind given, the canonical identifiers `[n]`, "" for none.
    - `ra, dec [n]`: deg (ICRS) at `epoch [n]` (Julian year); `pmra` (times cos dec), `pmdec [n]`: mas/yr. NaN
      where not known.
    - `notes`: what could not be read as it should.
    """

    keys: dict[str, Shaped[np.ndarray, " n"]]
    ra: Float[np.ndarray, " n"]
    dec: Float[np.ndarray, " n"]
    pmra: Float[np.ndarray, " n"]
    pmdec: Float[np.ndarray, " n"]
    epoch: Float[np.ndarray, " n"]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.ra)

    @property
    def named(self) -> Bool[np.ndarray, " n"]:
        """Rows with any identifier or a position: the others can be matched with nothing."""
        out = np.isfinite(self.ra) & np.isfinite(self.dec)
        for values in self.keys.values():
            out |= values != ""
        return out

    def label(self, row: int) -> str:
        """One readable identifier of a row."""
        return str(self.rows(np.array([row])).labels()[0])

    def labels(self) -> Shaped[np.ndarray, " n"]:
        """One readable identifier of each row; "" where there is none."""
        out = np.full(len(self), "", dtype=object)
        prefix = {"hip": "HIP ", "name": "", "gaia": "Gaia DR3 ", "gaia_dr2": "Gaia DR2 ", "tmass": "2MASS J"}
        for kind, text in prefix.items():
            if kind in self.keys:
                use = (out == "") & (self.keys[kind] != "")
                out[use] = text + self.keys[kind][use]
        for row in np.flatnonzero((out == "") & np.isfinite(self.ra)):
            out[row] = f"ra {self.ra[row]:.5f} dec {self.dec[row]:+.5f}"
        return out

    def rows(self, index: np.ndarray) -> "Identifiers":
        """The identifiers of these rows."""
        return Identifiers(
            {kind: values[index] for kind, values in self.keys.items()},
            *(getattr(self, name)[index] for name in ("ra", "dec", "pmra", "pmdec", "epoch")),
        )


def identifiers(
    n: int,
    *,
    ra: np.ndarray | None = None,
    dec: np.ndarray | None = None,
    pmra: np.ndarray | None = None,
    pmdec: np.ndarray | None = None,
    epoch: np.ndarray | float = 2000.0,
    where: str = "identifiers",
    **names: Iterable[Any],
) -> Identifiers:
    """Identifiers of n rows from raw columns by kind (`hip=`, `gaia=`, ...), brought to canonical form.

    A name that is another catalogue's designation ("HIP 57051" under `name`) counts as that kind too, and a
    designation that says another Gaia release ("Gaia DR2 42" under `gaia`) as one of that, noted. Up to
    one cell in twenty that is no identifier of its kind counts as a name, and is noted; more raise
    `InputError` naming the first. So do source_ids stored as floating-point numbers, which cannot hold them.
    """
    keys: dict[str, np.ndarray] = {}
    notes: list[str] = []
    for kind, values in names.items():
        if kind not in KINDS:
            raise InputError(
                f"{where}.{kind}", "an unknown kind", f"one of {', '.join(KINDS)}", "use one of these kinds"
            )
        array: np.ma.MaskedArray = np.ma.asarray(values)
        if kind.startswith("gaia") and array.dtype.kind == "f":
            raise InputError(
                f"{where}.{kind}",
                "floating-point numbers",
                "integers or text: a source_id has up to 19 digits, of which a float holds 16",
                "write the column as 64-bit integers",
            )
        if array.shape != (n,):
            raise InputError(f"{where}.{kind}", f"shape {array.shape}", f"{(n,)}", "one for each row")
        texts, moved = _texts(array), {}
        if kind.startswith("gaia"):
            for i, text in enumerate(texts):
                other = _RELEASES.get(str(release(text)), kind)
                if other != kind:
                    moved[i], texts[i] = (other, canonical(other, text)), ""
        own, unread = _canonical_column(kind, texts, f"{where}.{kind}")
        known = keys.setdefault(kind, np.full(n, "", dtype=object))
        keys[kind] = np.where(own != "", own, known)
        for i, (other, key) in moved.items():
            known = keys.setdefault(other, np.full(n, "", dtype=object))
            known[i] = known[i] or key
        if moved:
            other = next(iter(moved.values()))[0]
            notes.append(f"{kind}: {len(moved)} cells name another Gaia release, and count as {other}")
        fills = sum(1 for text, key in zip(texts, own, strict=True) if key == "" and not is_blank(text))
        fills -= len(unread)
        if fills:
            example = next(t for t, key in zip(texts, own, strict=True) if key == "" and not is_blank(t))
            notes.append(f"{kind}: {fills} cells such as {example!r} stand for no identifier")
        for i, text in unread.items():
            keys.setdefault("name", np.full(n, "", dtype=object))[i] = canonical("name", text)
        if unread:
            notes.append(
                f"{kind}: {len(unread)} cells such as {next(iter(unread.values()))!r} taken as names"
            )
    if "name" in names:
        for i, text in enumerate(_texts(np.ma.asarray(names["name"]))):
            kind, key = recognise(text)
            if kind != "name" and key:
                known = keys.setdefault(kind, np.full(n, "", dtype=object))
                known[i] = known[i] or key
    nan = np.full(n, np.nan)
    places = (nan if x is None else np.asarray(x, np.float64) for x in (ra, dec, pmra, pmdec))
    right, declination, motion, motion_dec = places
    epochs = np.broadcast_to(np.asarray(epoch, np.float64), (n,)).copy()
    return Identifiers(keys, right, declination, motion, motion_dec, epochs, tuple(notes))


def _canonical_column(kind: str, texts: list[str], where: str) -> tuple[np.ndarray, dict[int, str]]:
    """Canonical identifiers of a column, and the cells by row that are none."""
    out, unread = np.full(len(texts), "", dtype=object), {}
    first: InputError | None = None
    for i, text in enumerate(texts):
        try:
            out[i] = canonical(kind, text, f"{where} row {i}")
        except InputError as error:
            unread[i], first = text, first or error
    if first is not None and len(unread) > max(1, len(texts) // 20):
        raise first
    return out, unread


def _texts(array: np.ma.MaskedArray) -> list[str]:
    mask = np.ma.getmaskarray(array)
    out = []
    for value, hidden in zip(np.asarray(array.data), mask, strict=True):
        if hidden or (isinstance(value, np.floating) and not np.isfinite(value)):
            out.append("")
        elif isinstance(value, (int, float, np.integer, np.floating)):
            # The negative fill values of a dozen tables.
            out.append("" if value <= 0 else str(int(value)) if value == int(value) else str(value))
        else:
            out.append(value.decode(errors="replace") if isinstance(value, bytes) else str(value))
    return out
