"""From matched catalogues to the sky that the model sees, and the list of its stars."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntFlag

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from jaxspec.catalogues.catalogue import Catalogue
from jaxspec.catalogues.copies import check_copies
from jaxspec.catalogues.crossmatch import Finding, Match
from jaxspec.catalogues.identifiers import KINDS
from jaxspec.errors import InputError
from jaxspec.surveys.observations import Sky, Survey

log = logging.getLogger(__name__)


class StarFlag(IntFlag):
    """Bits of a star in the calibrated catalogue; 0 is safe."""

    ONE_SURVEY = 1
    SURVEY_FLAG = 2
    DOUBTFUL_MATCH = 4
    REPEATED = 8
    OUTLIER = 16
    LABEL_MISSING = 32


FLAG_TEXT = {
    StarFlag.ONE_SURVEY: "seen by a single survey: rests on its calibration alone",
    StarFlag.SURVEY_FLAG: "a survey's own flags call the star suspect",
    StarFlag.DOUBTFUL_MATCH: "rows taken for this star disagree in position, magnitude or labels",
    StarFlag.REPEATED: "more than one row in one survey",
    StarFlag.OUTLIER: "a survey's labels of this star are outliers",
    StarFlag.LABEL_MISSING: "a label that no survey measured: inferred from the others and the population",
}


@dataclass(frozen=True)
class Stars:
    """The n stars of a sky: canonical identifiers by kind (text, "" for none), a readable identifier,
    position [deg], the open cluster, and bits of `StarFlag`."""

    identifier: Shaped[np.ndarray, " n"]
    keys: dict[str, Shaped[np.ndarray, " n"]]
    ra: Float[np.ndarray, " n"]
    dec: Float[np.ndarray, " n"]
    cluster: Shaped[np.ndarray, " n"]
    flags: Int[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.identifier)


@dataclass(frozen=True)
class Assembled:
    """The sky, its stars, the row of the catalogue behind each row of each survey, and what was left out or
    should be known (`findings` of the match, `notes`)."""

    sky: Sky
    stars: Stars
    rows: tuple[Int[np.ndarray, " _"], ...]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]


def assemble(
    catalogues: Sequence[Catalogue],
    match: Match,
    *,
    duplicates: Sequence[str] = (),
    zero_point_error: Sequence[Float[np.ndarray, " l"] | None] = (),
) -> Assembled:
    """The sky of matched catalogues, which must share one label set.

    Rows without any label are left out, and stars with no other row with them; so are exact copies of a row
    (the same star, labels and errors: no second measurement). `duplicates[k]` is what to do with further
    rows of a star in catalogue k: "keep" them as repeated measurements, keep the "first", or call it an
    "error". A row that a match makes doubtful is flagged, as if by the survey. A row's cluster is the star's.

    Tables that share measurements are told in the notes and logged as a warning.

    Raises `InputError` for tables that are the same, for catalogues of different label sets, for a repeated
    star where that is an error, for a label without any value, and where nothing is left.
    """
    for catalogue in catalogues:
        if catalogue.label_set != catalogues[0].label_set:
            raise InputError(
                f"table {catalogue.name}", "another label set", "one for all", "read them together"
            )
    policies = list(duplicates) or ["keep"] * len(catalogues)
    zero = list(zero_point_error) or [None] * len(catalogues)
    notes = check_copies(catalogues, match)
    for note in notes:
        log.warning("%s", note)
    kept = [
        _kept_rows(catalogue, star, policy, notes)
        for catalogue, star, policy in zip(catalogues, match.star, policies, strict=True)
    ]
    present = np.unique(np.concatenate([star[rows] for star, rows in zip(match.star, kept, strict=True)]))
    if not present.size:
        raise InputError("tables", "no row with a label", "at least one star", "check the columns")
    if present.size < match.n_stars:
        notes.append(f"{match.n_stars - present.size} stars without any label left out")
    number = np.full(match.n_stars, -1)
    number[present] = np.arange(present.size)
    surveys, used = [], []
    for k, catalogue in enumerate(catalogues):
        rows = kept[k]
        if not rows.size:
            notes.append(f"{catalogue.name}: no row with a label; the table is left out")
            continue
        surveys.append(
            Survey(
                name=catalogue.name,
                star=number[match.star[k][rows]],
                values=catalogue.labels[rows],
                covariance=catalogue.covariance[rows],
                flagged=(catalogue.flags[rows] != 0) | match.doubtful[k][rows],
                anchor=catalogue.anchor,
                zero_point_error=zero[k] if catalogue.anchor else None,
                errors_only=catalogue.errors_only and not catalogue.anchor,
            )
        )
        used.append(k)
    stars = _stars([number[star] for star in match.star], catalogues, present.size)
    group, clusters = _groups(stars.cluster)
    if clusters:
        notes.append(f"{len(clusters)} clusters of two or more stars: {', '.join(clusters[:8])}")
    label_set = catalogues[0].label_set
    sky = Sky(label_set, tuple(surveys), int(present.size), group)
    stars = replace(
        stars, flags=_flags(sky, [match.doubtful[k][kept[k]] for k in used], catalogues, used, kept)
    )
    return Assembled(sky, stars, tuple(kept[k] for k in used), match.findings, tuple(notes))


def _kept_rows(
    catalogue: Catalogue, star: Int[np.ndarray, " n"], policy: str, notes: list[str]
) -> Int[np.ndarray, " m"]:
    """Rows with a label, without exact copies, and with one row a star where that is wanted."""
    there = np.isfinite(catalogue.labels).any(1)
    if not there.all():
        notes.append(f"{catalogue.name}: {int((~there).sum())} rows without any label left out")
    rows = np.flatnonzero(there)
    _, index, counts = np.unique(star[rows], return_inverse=True, return_counts=True)
    single = counts[index] == 1
    seen: dict[int, list[int]] = {}
    copies, further, out = 0, 0, []
    for row in rows[~single]:
        others = seen.setdefault(int(star[row]), [])
        if any(_same_row(catalogue, int(row), other) for other in others):
            copies += 1
            continue
        if others and policy == "error":
            raise InputError(
                f"table {catalogue.name}, rows {others[0]} and {row}",
                f"the same star {catalogue.identifiers.label(int(row))} twice",
                "each star once, as duplicates: error asks",
                "remove one, or set duplicates: keep or first",
            )
        if others:
            further += 1
            if policy == "first":
                continue
        others.append(int(row))
        out.append(int(row))
    if copies:
        notes.append(f"{catalogue.name}: {copies} exact copies of another row left out")
    if further:
        what = "left out" if policy == "first" else "kept as repeated measurements"
        notes.append(f"{catalogue.name}: {further} further rows of stars it has already, {what}")
    return np.sort(np.concatenate([rows[single], np.array(out, np.int64)]))


def _same_row(catalogue: Catalogue, a: int, b: int) -> bool:
    return np.array_equal(catalogue.labels[a], catalogue.labels[b], equal_nan=True) and np.array_equal(
        catalogue.covariance[a], catalogue.covariance[b]
    )


def _stars(star: list[np.ndarray], catalogues: Sequence[Catalogue], n: int) -> Stars:
    """Identifiers of n stars: the first that any of their rows gives."""
    keys = {kind: np.full(n, "", dtype=object) for kind in KINDS}
    identifier, cluster = np.full(n, "", dtype=object), np.full(n, "", dtype=object)
    ra, dec = np.full(n, np.nan), np.full(n, np.nan)
    for s, catalogue in zip(star, catalogues, strict=True):
        who = catalogue.identifiers
        rows = np.flatnonzero(s >= 0)[::-1]  # of several rows of a star, the first is written last
        for kind, values in who.keys.items():
            _fill(keys[kind], s[rows], values[rows])
        _fill(identifier, s[rows], who.labels()[rows])
        if catalogue.cluster is not None:
            _fill(cluster, s[rows], catalogue.cluster[rows])
        placed = rows[np.isnan(ra[s[rows]]) & np.isfinite(who.ra[rows])]
        ra[s[placed]], dec[s[placed]] = who.ra[placed], who.dec[placed]
    keys = {kind: values for kind, values in keys.items() if (values != "").any()}
    return Stars(identifier, keys, ra, dec, cluster, np.zeros(n, np.int64))


def _fill(out: np.ndarray, at: np.ndarray, values: np.ndarray) -> None:
    """Write text that is not empty to places that are."""
    use = (values != "") & (out[at] == "")
    out[at[use]] = values[use]


def _groups(cluster: Shaped[np.ndarray, " n"]) -> tuple[Int[np.ndarray, " n"], list[str]]:
    """Index of each star's cluster, -1 for none and for clusters of a single star; their names."""
    unique, counts = np.unique(cluster.astype(str), return_counts=True)
    names = [str(name) for name, count in zip(unique, counts, strict=True) if name and count > 1]
    index = {name: i for i, name in enumerate(names)}
    return np.array([index.get(str(c), -1) for c in cluster], np.int64), names


def _flags(
    sky: Sky,
    doubtful: list[Bool[np.ndarray, " _"]],
    catalogues: Sequence[Catalogue],
    used: list[int],
    kept: list[np.ndarray],
) -> Int[np.ndarray, " n"]:
    flags = np.zeros(sky.n_stars, np.int64)
    surveys_of, measured = np.zeros(sky.n_stars, int), np.zeros((sky.n_stars, len(sky.label_set)), bool)
    for survey, doubt, k in zip(sky.surveys, doubtful, used, strict=True):
        counts = np.bincount(survey.star, minlength=sky.n_stars)
        surveys_of += counts > 0
        flags[counts > 1] |= StarFlag.REPEATED
        flags[survey.star[doubt]] |= StarFlag.DOUBTFUL_MATCH
        flags[survey.star[catalogues[k].flags[kept[k]] != 0]] |= StarFlag.SURVEY_FLAG
        np.logical_or.at(measured, survey.star, np.isfinite(survey.values))
    flags[surveys_of == 1] |= StarFlag.ONE_SURVEY
    flags[~measured.all(1)] |= StarFlag.LABEL_MISSING
    return flags
