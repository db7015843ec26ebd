"""Which rows of several catalogues are the same star, and which matches are not to be believed.

Rows are joined by designation first (Gaia, Hipparcos, 2MASS, name), then by position. Nothing is decided in
silence: repeats, contradicting designations, refused and doubtful matches are all in the report.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from jaxtyping import Float, Int
from scipy.stats import median_abs_deviation

from jaxspec.catalogues.catalogue import Catalogue
from jaxspec.catalogues.identifiers import KINDS, Identifiers
from jaxspec.errors import InputError

# Kinds of which a star has one: two rows that differ in one are two stars, unless a designation says
# otherwise.
UNIQUE = ("gaia", "gaia_dr2", "hip", "tmass")
# A match is doubtful when labels differ by so many robust standard deviations from what is usual between the
# two catalogues or, where they share fewer than FEW stars, by more than LARGE.
SIGMA, FEW = 8.0, 20
LARGE = {"teff": 1000.0, "logg": 1.5, "ebv": 0.5}
LARGE_ABUNDANCE = 1.0
MAGNITUDES_APART = 1.0
# Rows of one catalogue further apart [arcsec] are not one star, whatever they are called.
APART = 60.0
# More rows of one catalogue under one designation than any star has visits: the column says something else.
MOST_VISITS = 100


@dataclass(frozen=True)
class Finding:
    """Something about the match that a user should know.

    `kind` is one of

    - "repeat": one star twice in a catalogue;
    - "conflict": rows joined by one designation that differ in another;
    - "refused": rows that a position or a designation would join, kept apart;
    - "ambiguous": several candidates within the radius, the nearest taken;
    - "position", "magnitude", "label": rows of one star that disagree there, and are doubtful.

    `a` and `b` are (catalogue, row) by number.
    """

    kind: str
    star: str
    a: tuple[int, int]
    b: tuple[int, int]
    detail: str


@dataclass(frozen=True)
class Match:
    """Rows resolved to stars: `star[k] [n_k]` is the star of each row of catalogue k, in `0..n_stars-1`,
    numbered by first appearance. `doubtful[k] [n_k]`: the row disagrees with the star's other rows."""

    star: tuple[Int[np.ndarray, " _"], ...]
    n_stars: int
    doubtful: tuple[np.ndarray, ...]
    findings: tuple[Finding, ...]

    def counts(self) -> dict[str, int]:
        """How many findings there are of each kind."""
        out: dict[str, int] = defaultdict(int)
        for finding in self.findings:
            out[finding.kind] += 1
        return dict(out)

    def common(self) -> Int[np.ndarray, "k k"]:
        """Number of stars that two catalogues share; on the diagonal, that each has."""
        n = len(self.star)
        there = np.zeros((n, self.n_stars), bool)
        for k, star in enumerate(self.star):
            there[k, star] = True
        return (there[:, None, :] & there[None, :, :]).sum(-1)


def crossmatch(catalogues: Sequence[Catalogue], radius: float = 2.0) -> Match:
    """Match all catalogues at once. `radius` [arcsec] is that of matches by position.

    Two rows are one star when they share a designation; those of one catalogue that differ in another
    designation are kept apart (components of a binary under one Hipparcos number). A row without a
    designation in common with another catalogue's rows is joined to the nearest within `radius`, both ways,
    if no designation or magnitude (1 mag in the same band) contradicts. Positions are compared at one epoch
    where proper motions are known.

    Raises `InputError` for no catalogue, a radius that is not positive, and a designation that so many rows
    of one catalogue share that it cannot name a star.
    """
    if not catalogues:
        raise InputError("catalogues", "none", "one or more", "name the tables")
    if not radius > 0:
        raise InputError("radius", f"{radius}", "a positive number of arcsec", "give 1.0, say")
    joined = _Components(catalogues)
    for kind in KINDS:
        joined.by_designation(kind)
    for a in range(len(catalogues)):
        for b in range(a, len(catalogues)):
            joined.by_position(a, b, radius)
    star, n_stars = joined.numbered()
    findings = [*joined.findings, *_repeats(catalogues, star)]
    doubts = _doubts(catalogues, star, radius)
    doubtful = [np.zeros(len(c), bool) for c in catalogues]
    for finding in doubts:
        for k, row in (finding.a, finding.b):
            doubtful[k][row] = True
    return Match(tuple(star), n_stars, tuple(doubtful), (*findings, *doubts))


class _Components:
    """Sets of rows that are one star (union-find), with what is known of each set."""

    def __init__(self, catalogues: Sequence[Catalogue]):
        self.catalogues = catalogues
        self.offset = np.concatenate([[0], np.cumsum([len(c) for c in catalogues])])
        self.parent = np.arange(self.offset[-1])
        self.catalogue_of = np.repeat(np.arange(len(catalogues)), [len(c) for c in catalogues])
        self.members: dict[int, list[int]] = {}
        self.findings: list[Finding] = []
        self.direction = np.concatenate([_directions(c.identifiers) for c in catalogues])

    def place(self, node: int) -> tuple[int, int]:
        k = int(self.catalogue_of[node])
        return k, int(node - self.offset[k])

    def root(self, node: int) -> int:
        while self.parent[node] != node:
            self.parent[node] = self.parent[self.parent[node]]
            node = self.parent[node]
        return int(node)

    def rows(self, root: int) -> list[int]:
        return self.members.get(root, [root])

    def key(self, node: int, kind: str) -> str:
        k, row = self.place(node)
        keys = self.catalogues[k].identifiers.keys
        return keys[kind][row] if kind in keys else ""

    def contradictions(self, x: int, y: int) -> tuple[str, str]:
        """Reasons that keep two sets apart because rows of one catalogue differ, and mere differences."""
        apart, differs = "", ""
        for p in self.rows(x):
            for q in self.rows(y):
                same = self.place(p)[0] == self.place(q)[0]
                for kind in KINDS if same else UNIQUE:
                    left, right = self.key(p, kind), self.key(q, kind)
                    if left and right and left != right:
                        text = f"{kind} {left} and {right}"
                        apart, differs = (apart or text) if same else apart, differs or text
        return apart, differs

    def join(self, x: int, y: int) -> None:
        x, y = sorted((x, y))
        self.members[x] = self.rows(x) + self.rows(y)
        self.members.pop(y, None)
        self.parent[y] = x

    def note(self, kind: str, p: int, q: int, detail: str) -> None:
        k, row = self.place(p)
        name = self.catalogues[k].identifiers.label(row)
        self.findings.append(Finding(kind, name, self.place(p), self.place(q), detail))

    def by_designation(self, kind: str) -> None:
        first: dict[str, list[int]] = {}
        for k, catalogue in enumerate(self.catalogues):
            if kind not in catalogue.identifiers.keys:
                continue
            _check_designations(catalogue, kind)
            for row, key in enumerate(catalogue.identifiers.keys[kind]):
                if key:
                    first.setdefault(key, []).append(int(self.offset[k]) + row)
        for key, nodes in first.items():
            if len(nodes) == 1 or self._scattered(kind, key, nodes):
                continue
            # Sets already seen of this designation: more than one where rows of one catalogue are apart.
            seen = [self.root(nodes[0])]
            for node in nodes[1:]:
                x = self.root(node)
                seen = [self.root(s) for s in seen]
                if x in seen:
                    continue
                for candidate in seen:
                    apart, differs = self.contradictions(candidate, x)
                    if not apart:
                        if differs:
                            self.note("conflict", candidate, node, f"same {kind} {key}, but {differs}")
                        self.join(candidate, x)
                        break
                    self.note("refused", candidate, node, f"same {kind} {key}, but in one table {apart}")
                else:
                    seen.append(x)

    def _scattered(self, kind: str, key: str, nodes: list[int]) -> bool:
        """Whether rows of one catalogue stand too far apart for the designation to be of one star: it is a
        placeholder, and joins nothing."""
        placed = [node for node in nodes if np.isfinite(self.direction[node, 0])]
        first: dict[int, int] = {}
        scattered = False
        for node in placed:
            origin = first.setdefault(int(self.catalogue_of[node]), node)
            chord = float(np.linalg.norm(self.direction[node] - self.direction[origin]))
            separation = np.degrees(2.0 * np.arcsin(min(1.0, 0.5 * chord))) * 3600.0
            if separation > APART:
                how = f'{separation:.0f}"' if separation < 3600.0 else f"{separation / 3600.0:.1f} deg"
                self.note("refused", origin, node, f"same {kind} {key}, but {how} apart: no star's name")
                scattered = True
        return scattered

    def by_position(self, a: int, b: int, radius: float) -> None:
        left, right = self.catalogues[a].identifiers, self.catalogues[b].identifiers
        rows_a, rows_b = (np.flatnonzero(np.isfinite(x.ra) & np.isfinite(x.dec)) for x in (left, right))
        if not rows_a.size or not rows_b.size or (a == b and rows_a.size < 2):
            return
        epoch = _common_epoch(left, right)
        sky_a, sky_b = at_epoch(left, epoch)[rows_a], at_epoch(right, epoch)[rows_b]
        i, j, separation, _ = sky_b.search_around_sky(sky_a, radius * u.arcsec)
        separation = separation.to_value(u.arcsec)
        if a == b:
            i, j, separation = (x[i < j] for x in (i, j, separation))
        order = np.argsort(separation, kind="stable")
        i, j, separation = i[order], j[order], separation[order]
        many = np.bincount(i, minlength=len(rows_a))
        # Sorted by separation, the first of each row is its nearest.
        first_i = np.isin(np.arange(len(i)), np.unique(i, return_index=True)[1])
        first_j = np.isin(np.arange(len(j)), np.unique(j, return_index=True)[1])
        left_node, right_node = self.offset[a] + rows_a[i], self.offset[b] + rows_b[j]
        roots = self.roots()
        apart = roots[left_node] != roots[right_node]
        for n in np.flatnonzero(first_i & first_j & apart):
            p, q = int(left_node[n]), int(right_node[n])
            x, y = self.root(p), self.root(q)
            if x == y:
                continue
            where = f'{separation[n]:.2f}" apart'
            _, differs = self.contradictions(x, y)
            differs = differs or self._magnitudes(p, q)
            if differs:
                self.note("refused", p, q, f"{where}, but {differs}")
                continue
            if many[i[n]] > 1:
                self.note("ambiguous", p, q, f"{where}, the nearest of {many[i[n]]}")
            self.join(x, y)

    def _magnitudes(self, p: int, q: int) -> str:
        (k, row), (m, other) = self.place(p), self.place(q)
        return magnitudes_apart(self.catalogues[k], row, self.catalogues[m], other)

    def roots(self) -> np.ndarray:
        """The set of every row."""
        parent = self.parent
        while (parent[parent] != parent).any():
            parent = parent[parent]
        return parent

    def numbered(self) -> tuple[list[np.ndarray], int]:
        roots = self.roots()
        unique, first, inverse = np.unique(roots, return_index=True, return_inverse=True)
        rank = np.empty(len(unique), np.int64)
        rank[np.argsort(first)] = np.arange(len(unique))
        star = rank[inverse]
        split = [star[self.offset[k] : self.offset[k + 1]] for k in range(len(self.catalogues))]
        return split, len(unique)


def _check_designations(catalogue: Catalogue, kind: str) -> None:
    names, counts = np.unique(catalogue.identifiers.keys[kind].astype(str), return_counts=True)
    counts = np.where(names == "", 0, counts)
    if counts.max(initial=0) > MOST_VISITS:
        raise InputError(
            f"table {catalogue.name}, identifiers.{kind}",
            f"{str(names[np.argmax(counts)])!r} in {counts.max()} rows",
            "a designation of one star",
            "give a column that names stars (clusters go under cluster:), or list a fill value as select:",
        )


def _common_epoch(a, b) -> float:
    """The epoch to compare two catalogues at: that of the one without proper motions, else J2000."""
    for one in (a, b):
        if not np.isfinite(one.pmra).any() and np.isfinite(one.ra).any():
            return float(np.nanmedian(one.epoch))
    return 2000.0


def at_epoch(who, epoch: float) -> SkyCoord:
    """Positions `[n]` moved by their proper motion, where known, to a Julian year; NaN becomes the pole."""
    step = np.where(np.isfinite(who.pmra) & np.isfinite(who.pmdec), (epoch - who.epoch) / 3.6e6, 0.0)
    dec = who.dec + step * np.nan_to_num(who.pmdec)
    ra = who.ra + step * np.nan_to_num(who.pmra) / np.maximum(np.cos(np.radians(who.dec)), 1e-6)
    dec = np.clip(np.nan_to_num(dec, nan=90.0), -90.0, 90.0)
    return SkyCoord(np.nan_to_num(ra) % 360.0, dec, unit=u.deg)


def _directions(who: Identifiers) -> Float[np.ndarray, "n 3"]:
    """Unit vectors of positions at J2000, NaN where there is none."""
    known = np.isfinite(who.ra) & np.isfinite(who.dec)
    out = np.full((len(who), 3), np.nan)
    if known.any():
        out[known] = at_epoch(who.rows(np.flatnonzero(known)), 2000.0).cartesian.xyz.value.T
    return out


def magnitudes_apart(a: Catalogue, row: int, b: Catalogue, other: int) -> str:
    """How two rows differ in a magnitude of the same band by more than 1 mag; "" where they do not."""
    if a.magnitude is None or b.magnitude is None or a.band != b.band:
        return ""
    difference = b.magnitude[other] - a.magnitude[row]
    return f"{a.band} differs by {difference:.1f} mag" if abs(difference) > MAGNITUDES_APART else ""


def _repeats(catalogues: Sequence[Catalogue], star: list[np.ndarray]) -> list[Finding]:
    found = []
    for k, catalogue in enumerate(catalogues):
        _, first, inverse = np.unique(star[k], return_index=True, return_inverse=True)
        for row in np.flatnonzero(first[inverse] != np.arange(len(star[k]))):
            name, other = catalogue.identifiers.label(int(row)), int(first[inverse[row]])
            found.append(Finding("repeat", name, (k, other), (k, int(row)), f"in {catalogue.name}"))
    return found


def _doubts(catalogues: Sequence[Catalogue], star: list[np.ndarray], radius: float) -> list[Finding]:
    """Rows of one star that disagree in position, magnitude or labels, within a catalogue and for every pair
    of catalogues."""
    found = [f for k, rows in enumerate(star) for f in _unlike_repeats(catalogues[k], k, rows)]
    for a in range(len(catalogues)):
        for b in range(a + 1, len(catalogues)):
            rows_a, rows_b = _pairs(star[a], star[b])
            if rows_a.size:
                found += _doubts_of(catalogues, a, b, rows_a, rows_b, radius)
    return found


def _unlike_repeats(catalogue: Catalogue, k: int, star: np.ndarray) -> list[Finding]:
    """Further rows of a star whose labels are another star's: 8 times their errors, and half of what is
    large, from the first row's. The designation they share may be a placeholder."""
    _, first, inverse = np.unique(star, return_index=True, return_inverse=True)
    rows = np.flatnonzero(first[inverse] != np.arange(len(star)))
    other = first[inverse[rows]]
    difference = catalogue.labels[rows] - catalogue.labels[other]
    error = np.hypot(catalogue.errors[rows], catalogue.errors[other])
    found = []
    for j, label in enumerate(catalogue.label_set):
        limit = 0.5 * LARGE.get(label.name, LARGE_ABUNDANCE)
        with np.errstate(invalid="ignore"):
            unlike = np.abs(difference[:, j]) > np.fmax(limit, SIGMA * error[:, j])
        for n in np.flatnonzero(unlike):
            name = catalogue.identifiers.label(int(rows[n]))
            detail = f"twice in {catalogue.name}: {label.name} differs by {difference[n, j]:.4g} {label.unit}"
            found.append(Finding("label", name, (k, int(other[n])), (k, int(rows[n])), detail))
    return found


def _pairs(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of two catalogues that are the same star: the first of each in either."""
    stars_a, first_a = np.unique(a, return_index=True)
    stars_b, first_b = np.unique(b, return_index=True)
    _, i, j = np.intersect1d(stars_a, stars_b, assume_unique=True, return_indices=True)
    return first_a[i], first_b[j]


def _doubts_of(catalogues, a: int, b: int, rows_a, rows_b, radius: float) -> list[Finding]:
    left, right = catalogues[a], catalogues[b]
    found = []

    def note(kind: str, n: int, detail: str) -> None:
        name = left.identifiers.label(int(rows_a[n]))
        place = (a, int(rows_a[n])), (b, int(rows_b[n]))
        found.append(Finding(kind, name, *place, f"{left.name}, {right.name}: {detail}"))

    x, y = left.identifiers.rows(rows_a), right.identifiers.rows(rows_b)
    epoch = _common_epoch(x, y)
    known = np.isfinite(x.ra) & np.isfinite(y.ra)
    for one in (x, y):  # a position that cannot be moved to the other's epoch proves nothing
        known &= np.isfinite(one.pmra) | (np.abs(one.epoch - epoch) < 1.0)
    separation = at_epoch(x, epoch).separation(at_epoch(y, epoch)).to_value(u.arcsec)
    for n in np.flatnonzero(known & (separation > 5.0 * radius)):
        note("position", int(n), f'{separation[n]:.1f}" apart')
    for pair in range(len(rows_a)):
        apart = magnitudes_apart(left, int(rows_a[pair]), right, int(rows_b[pair]))
        if apart:
            note("magnitude", pair, apart)
    difference = right.labels[rows_b] - left.labels[rows_a]
    for j, label in enumerate(left.label_set):
        for n in far(difference[:, j], LARGE.get(label.name, LARGE_ABUNDANCE)):
            note("label", int(n), f"{label.name} differs by {difference[n, j]:.4g} {label.unit}")
    return found


def far(difference: Float[np.ndarray, " n"], large: float) -> Int[np.ndarray, " m"]:
    """Rows whose difference stands 8 robust standard deviations off the median or, where there are fewer than
    20, is larger than `large`."""
    there = np.isfinite(difference)
    if there.sum() < FEW:
        return np.flatnonzero(there & (np.abs(difference) > large))
    centre = np.median(difference[there])
    # Values rounded to the same two decimals would make any other difference infinitely many deviations.
    scatter = max(float(median_abs_deviation(difference[there], scale="normal")), 0.03 * large)
    return np.flatnonzero(there & (np.abs(difference - centre) > SIGMA * scatter))
