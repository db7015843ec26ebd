"""The stars that tie surveys together, arranged for the likelihood.

Only these inform the offsets. A star measured once, in a survey with a selection of its own, says what the
survey's stars look like and nothing about its offset: with a free population for every survey the likelihood
of such stars does not depend on the offset at all. To let them speak, one would have to assume that all
surveys look at the same stars; that is never so, and the gain would be small (at 500 K of population scatter,
450 stars fix a mean to 24 K; 30 overlap stars do better). They enter afterwards, where the populations of
the surveys are learned and every star is calibrated (`predict`).
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxspec.errors import InputError
from jaxspec.surveys.basis import Basis
from jaxspec.surveys.observations import Sky
from jaxspec.surveys.scales import Scales

MOST_MEASUREMENTS = 12
# Rows and stars looked at at a time.
ROWS = 100_000
STARS = 5_000
# Visits of one star by one survey that differ by more than this reduced chi-square are suspect, not noise.
VISIT_CHI2 = 6.0


class Block(NamedTuple):
    """Stars with equally many measurements `m`, in model coordinates.

    `survey` is the survey of each measurement; `values` (0 where missing), `covariance` (diagonal where a
    survey has errors only: correlations are a term of the model), `present` and `flagged` are its data;
    `member` is the star's population class (or its group); `phi + slope @ u` is the basis of the trends
    linearised about the star's preliminary labels (`phi` is 0 where it is linear); `star` is its index in
    the sky.
    """

    survey: Int[Array | np.ndarray, "n m"]
    values: Float[Array | np.ndarray, "n m l"]
    covariance: Float[Array | np.ndarray, "n m l l"]
    present: Bool[Array | np.ndarray, "n m l"]
    flagged: Float[Array | np.ndarray, "n m"]
    member: Int[Array | np.ndarray, " n"]
    phi: Float[Array | np.ndarray, "n p"]
    slope: Float[Array | np.ndarray, "n p j"]
    star: Int[Array | np.ndarray, " n"]

    def take(self, rows) -> "Block":
        """The block of some of its stars."""
        return Block(*(x[rows] for x in self))


class Measurements(NamedTuple):
    """One row per star and survey, visits combined: `star [r]`, `survey [r]`, `values [r, l]` (NaN missing),
    `covariance [r, l, l]`, `flagged [r]`, in model coordinates; for each survey the differences between
    visits: `visit_chi2 [s, l, l]`, the terms of which their chi-square under the quoted errors is the sum,
    and `visit_dof [s, l]`, how many of them there are in each label."""

    star: Int[np.ndarray, " r"]
    survey: Int[np.ndarray, " r"]
    values: Float[np.ndarray, "r l"]
    covariance: Float[np.ndarray, "r l l"]
    flagged: Bool[np.ndarray, " r"]
    visit_chi2: Float[np.ndarray, "s l l"]
    visit_dof: Float[np.ndarray, "s l"]
    n_suspect: int

    def select(self, rows: np.ndarray) -> "Measurements":
        """Some of the rows."""
        return self._replace(
            star=self.star[rows],
            survey=self.survey[rows],
            values=self.values[rows],
            covariance=self.covariance[rows],
            flagged=self.flagged[rows],
        )


class TieIndex(NamedTuple):
    """Which rows belong to the stars that tie: a few integers per star, so that the tables themselves can
    stay on disk.

    `star [t]` in the sky, sorted; its rows are entries `start[t]:start[t + 1]` of `survey [r]` and
    `row [r]`; `size [t]` surveys measure it, which is pattern `member [t]` of surveys, or group `member [t]`
    where `grouped [t]`. There are `n_classes` patterns and `n_groups` groups.
    """

    star: Int[np.ndarray, " t"]
    start: Int[np.ndarray, " t1"]
    survey: Int[np.ndarray, " r"]
    row: Int[np.ndarray, " r"]
    size: Int[np.ndarray, " t"]
    member: Int[np.ndarray, " t"]
    grouped: Bool[np.ndarray, " t"]
    n_classes: int
    n_groups: int

    def __len__(self) -> int:
        return len(self.star)


def index_ties(sky: Sky) -> TieIndex:
    """Find the stars that tie surveys together: measured more than once, or members of a group.

    Raises `InputError` if there is none, or if one is measured by more than `MOST_MEASUREMENTS` surveys.
    """
    counts, usable = np.zeros(sky.n_stars, np.int32), []
    for survey in sky.surveys:
        there = np.concatenate(
            [~np.isnan(survey.values[i : i + ROWS]).all(axis=1) for i in range(0, len(survey), ROWS)]
        )
        usable.append(there)
        np.add.at(counts, survey.star[there], 1)
    tie = (counts > 1) | ((sky.group >= 0) & (counts > 0))
    parts = [np.flatnonzero(tie[s.star] & there) for s, there in zip(sky.surveys, usable, strict=True)]
    row = np.concatenate(parts)
    survey_index = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    star = np.concatenate([s.star[part] for s, part in zip(sky.surveys, parts, strict=True)])
    if len(star) == 0:
        raise InputError(
            "surveys",
            f"no star measured more than once by {', '.join(sky.names)}",
            "stars that two surveys, or a survey and an anchor, share",
            "check the cross-match and its identifiers, or add a survey that overlaps",
        )
    order = np.lexsort((row, survey_index, star))
    star, survey_index, row = star[order], survey_index[order], row[order]
    stars, start = np.unique(star, return_index=True)
    new = np.r_[True, (np.diff(star) != 0) | (np.diff(survey_index) != 0)]
    count = np.add.reduceat(new.astype(int), start)
    if count.max() > MOST_MEASUREMENTS:
        raise InputError(
            f"star {stars[np.argmax(count)]}",
            f"measurements by {count.max()} surveys",
            f"at most {MOST_MEASUREMENTS}",
            "calibrate fewer surveys at a time",
        )
    grouped = np.asarray(sky.group)[stars] >= 0
    pattern = np.add.reduceat(new * 2.0**survey_index, start)
    member = np.zeros(len(stars), int)
    n_classes = n_groups = 0
    if (~grouped).any():
        # Stars that one set of surveys saw share the weights of the population.
        classes, member[~grouped] = np.unique(pattern[~grouped], return_inverse=True)
        n_classes = len(classes)
    if grouped.any():
        groups, member[grouped] = np.unique(np.asarray(sky.group)[stars[grouped]], return_inverse=True)
        n_groups = len(groups)
    return TieIndex(
        stars, np.r_[start, len(star)], survey_index, row, count, member, grouped, n_classes, n_groups
    )


def measurements_of(sky: Sky, scales: Scales, index: TieIndex, which: Int[np.ndarray, " k"]) -> Measurements:
    """The measurements of some of the tied stars, by their position in the index."""
    entry = np.concatenate([np.arange(index.start[i], index.start[i + 1]) for i in which])
    survey = index.survey[entry]
    return combine_visits(sky, scales, [index.row[entry[survey == s]] for s in range(len(sky.surveys))])


def combine_visits(sky: Sky, scales: Scales, rows: list[Int[np.ndarray, " _"]]) -> Measurements:
    """The chosen rows of each survey, with repeated visits of a star by one survey combined into one.

    A survey's own scatter is a property of the star and its spectrum's model, the same at every visit; so
    visits share it, and their differences say how large the quoted errors should have been. Flagged visits
    are left out where others are not flagged. Visits that differ by much more than their errors are kept,
    marked as flagged and counted, and their differences not used.
    """
    n_labels = len(sky.label_set)
    chi2, dof = np.zeros((len(rows), n_labels, n_labels)), np.zeros((len(rows), n_labels))
    parts, suspect = [], 0
    for s, (survey, chosen) in enumerate(zip(sky.surveys, rows, strict=True)):
        star = np.asarray(survey.star[chosen])
        values = scales.to_model(np.asarray(survey.values[chosen], float))
        covariance = scales.covariance_to_model(np.asarray(survey.covariance[chosen], float))
        pairs = ~np.isnan(values)
        covariance = np.where(pairs[:, :, None] & pairs[:, None, :], covariance, 0.0)
        if survey.errors_only:
            covariance = covariance * np.eye(n_labels)
        flagged = np.asarray(survey.flagged[chosen])
        order = np.argsort(star, kind="stable")
        unique, start, count = np.unique(star[order], return_index=True, return_counts=True)
        first = order[start]
        out_values, out_covariance, out_flag = values[first], covariance[first], flagged[first]
        for i in np.flatnonzero(count > 1):
            visits = order[start[i] : start[i] + count[i]]
            if (~flagged[visits]).any():
                visits = visits[~flagged[visits]]
            out_flag[i] = flagged[visits].all()
            out_values[i], out_covariance[i], one_chi2, one_dof = _combine(values[visits], covariance[visits])
            if one_dof.any() and one_chi2.sum() > VISIT_CHI2 * one_dof.sum():
                out_flag[i], suspect = True, suspect + 1
            else:
                chi2[s], dof[s] = chi2[s] + one_chi2, dof[s] + one_dof
        parts.append((unique, np.full(len(unique), s), out_values, out_covariance, out_flag))
    star, survey_index, values, covariance, flagged = (np.concatenate(x) for x in zip(*parts, strict=True))
    return Measurements(star, survey_index, values, covariance, flagged, chi2, dof, suspect)


def _combine(values, covariance) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Precision-weighted mean of visits, its covariance, the terms `[l, l]` of the chi-square about it, and
    each label's degrees of freedom."""
    n_labels, seen = values.shape[1], ~np.isnan(values)
    there = seen.any(axis=0)
    inverse = np.zeros(covariance.shape)
    for one, cov, has in zip(inverse, covariance, seen, strict=True):
        one[np.ix_(has, has)] = np.linalg.inv(cov[np.ix_(has, has)])
    mean, result = np.full(n_labels, np.nan), np.zeros((n_labels, n_labels))
    result[np.ix_(there, there)] = np.linalg.inv(inverse.sum(axis=0)[np.ix_(there, there)])
    weighted = np.einsum("vij,vj->i", inverse, np.nan_to_num(values))
    mean[there] = result[np.ix_(there, there)] @ weighted[there]
    residual = np.where(seen, values - mean, 0.0)
    chi2 = np.einsum("vi,vij,vj->ij", residual, inverse, residual)
    return mean, result, chi2, np.maximum(seen.sum(axis=0) - 1.0, 0.0)


def arrange(
    sky: Sky, scales: Scales, basis: Basis, index: TieIndex, which: Int[np.ndarray, " k"]
) -> tuple[list[Block], int]:
    """Blocks of some of the tied stars by their number of measurements, field stars first, and how many of
    the blocks are of field stars. Stars keep the order of `which` within their block."""
    rows = measurements_of(sky, scales, index, np.sort(which))
    order = np.lexsort((rows.survey, rows.star))
    rows = rows.select(order)
    _, start = np.unique(rows.star, return_index=True)
    u = preliminary_inputs(rows, start, scales)
    slopes = basis.slopes(u)
    sorted_which = np.sort(which)
    blocks, n_field = [], 0
    for grouped in (False, True):
        for m in np.unique(index.size[which][index.grouped[which] == grouped]):
            chosen = which[(index.size[which] == m) & (index.grouped[which] == grouped)]
            place = np.searchsorted(sorted_which, chosen)
            entry = start[place][:, None] + np.arange(m)
            values, covariance = rows.values[entry], rows.covariance[entry]
            blocks.append(
                Block(
                    survey=rows.survey[entry],
                    values=np.nan_to_num(values),
                    covariance=covariance,
                    present=~np.isnan(values),
                    flagged=rows.flagged[entry].astype(float),
                    member=index.member[chosen],
                    phi=basis.values(u[place]) - np.einsum("npj,nj->np", slopes[place], u[place]),
                    slope=slopes[place],
                    star=index.star[chosen],
                )
            )
        n_field = len(blocks) if not grouped else n_field
    return blocks, n_field


def preliminary_inputs(ordered: Measurements, start, scales: Scales) -> Float[np.ndarray, "n j"]:
    """Trend inputs of each star from the plain mean of its measurements, 0 where there are none."""
    there = ~np.isnan(ordered.values)
    total = np.add.reduceat(np.where(there, ordered.values, 0.0), start, axis=0)
    mean = total / np.maximum(np.add.reduceat(there, start, axis=0), 1)
    return mean @ scales.input_matrix.T
