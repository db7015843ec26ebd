"""The ties between the surveys' scales, label by label, and what is convention.

Stars in common fix differences between surveys; anchors fix the absolute scale. Surveys that no chain of
common stars connects to an anchor share an offset that no data can tell. Their mean offset is then zero by
convention, or that of a chosen reference survey, and the result says so.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxspec.errors import InputError
from jaxspec.surveys.observations import Sky
from jaxspec.surveys.scales import Scales
from jaxspec.surveys.tied import STARS, TieIndex, measurements_of

# A zero point and three trends need at least this many common stars.
FEW = 8


@dataclass(frozen=True)
class Identification:
    """For each label, which surveys share a scale and whether it is absolute.

    Attributes:
        component: index of the connected set of surveys each survey belongs to; -1 where it does not measure
            the label.
        anchored: whether the survey's set holds an anchor: its offset is then identified.
        shared: number of stars that pairs of surveys have in common.
        messages: what a user must know, in words.
    """

    component: Int[np.ndarray, "l s"]
    anchored: Bool[np.ndarray, "l s"]
    shared: Int[np.ndarray, "l s s"]
    messages: tuple[str, ...]

    def convention(
        self, is_anchor: Bool[np.ndarray, " s"], reference: int | None
    ) -> Float[np.ndarray, "l s s"]:
        """The projection that puts offsets into the convention: offset = projection @ free offset.

        Anchors are zero. Other surveys of an anchored set keep their offset, those of a set without anchor
        have the set's mean, or the reference survey's offset, taken off.
        """
        n_labels, n_surveys = self.component.shape
        result = np.zeros((n_labels, n_surveys, n_surveys))
        for label in range(n_labels):
            keep = np.diag((~is_anchor).astype(float))
            for c in np.unique(self.component[label]):
                member = self.component[label] == c
                if c < 0 or self.anchored[label][member].any():
                    continue
                weight = member / member.sum()
                if reference is not None and member[reference]:
                    weight = (np.arange(n_surveys) == reference).astype(float)
                keep[member] -= weight
            result[label] = keep
        return result


class Overlap(NamedTuple):
    """How the surveys overlap: the number of stars that pairs share in each label `shared [l, s, s]`, pairs
    that share a star or a group `linked [l, s, s]`, and the differences between visits of one star by one
    survey, `visit_chi2 [s, l, l]` and `visit_dof [s, l]` (see `tied.Measurements`), and in how many stars
    they were too large to be used."""

    shared: Int[np.ndarray, "l s s"]
    linked: Bool[np.ndarray, "l s s"]
    visit_chi2: Float[np.ndarray, "s l l"]
    visit_dof: Float[np.ndarray, "s l"]
    n_suspect: int


def find_overlap(sky: Sky, scales: Scales, index: TieIndex) -> Overlap:
    """Look at all tied stars, a part at a time."""
    n_surveys, n_labels = len(sky.surveys), len(sky.label_set)
    shared = np.zeros((n_labels, n_surveys, n_surveys), int)
    in_group = np.zeros((index.n_groups, n_labels, n_surveys), bool)
    chi2, dof = np.zeros((n_surveys, n_labels, n_labels)), np.zeros((n_surveys, n_labels))
    suspect = 0
    for begin in range(0, len(index), STARS):
        which = np.arange(begin, min(begin + STARS, len(index)))
        rows = measurements_of(sky, scales, index, which)
        chi2, dof, suspect = chi2 + rows.visit_chi2, dof + rows.visit_dof, suspect + rows.n_suspect
        place = np.searchsorted(index.star, rows.star)
        seen = np.zeros((len(which), n_labels, n_surveys))
        seen[place - begin, :, rows.survey] = ~np.isnan(rows.values)
        shared += np.rint(np.einsum("nls,nlt->lst", seen, seen)).astype(int)
        grouped = index.grouped[which]
        np.logical_or.at(in_group, index.member[which][grouped], seen[grouped] > 0)
    linked = shared > 0
    # Members of one group have one composition: surveys that measure it of any of them are linked.
    for label in composition(sky):
        pairs = in_group[:, label, :, None] & in_group[:, label, None, :]
        linked[label] |= pairs.any(axis=0)
    return Overlap(shared, linked, chi2, dof, suspect)


def need_two(sky: Sky) -> None:
    """Raise `InputError` for a sky of a single survey, or of anchors only."""
    if len(sky.surveys) == 1:
        raise InputError(
            "surveys",
            f"only {sky.names[0]}",
            "two or more, of which one may be an anchor",
            "add a survey or a set of benchmark stars that shares stars with it",
        )
    if all(survey.anchor for survey in sky.surveys):
        raise InputError(
            "surveys", "anchors only", "at least one survey to calibrate", "set anchor=False for it"
        )


def identify(sky: Sky, overlap: Overlap, reference: str | None = None) -> Identification:
    """Connect the surveys, label by label, through common stars and common groups.

    Raises `InputError` if no two surveys share any star or group, or if `reference` is an anchor.
    """
    n_surveys, n_labels = len(sky.surveys), len(sky.label_set)
    if reference is not None and sky.surveys[sky.index(reference)].anchor:
        raise InputError(
            "reference",
            reference,
            "a survey that is not an anchor",
            "leave it out: an anchor fixes the scale",
        )
    shared, linked = overlap.shared, overlap.linked
    off_diagonal = linked & ~np.eye(n_surveys, dtype=bool)
    if not off_diagonal.any():
        raise InputError(
            "surveys",
            f"no star measured by two of {', '.join(sky.names)}",
            "stars in common",
            "check the cross-match and its identifiers, or add a survey or anchor that overlaps",
        )
    is_anchor = np.array([survey.anchor for survey in sky.surveys])
    component = np.full((n_labels, n_surveys), -1)
    anchored = np.zeros((n_labels, n_surveys), bool)
    measured = np.array([survey.measured for survey in sky.surveys]).T
    for label in range(n_labels):
        component[label] = _components(linked[label] | np.diag(measured[label]), measured[label])
        for c in np.unique(component[label][component[label] >= 0]):
            member = component[label] == c
            anchored[label, member] = (member & is_anchor).any()
    messages = _describe(sky, component, anchored, shared, is_anchor, reference)
    if overlap.n_suspect:
        messages += (
            f"{overlap.n_suspect} stars have visits that differ far beyond their errors: taken as flagged",
        )
    return Identification(component, anchored, shared, messages)


def composition(sky: Sky) -> tuple[int, ...]:
    """Positions of the labels that stars born together share: abundances relative to hydrogen."""
    return tuple(i for i, name in enumerate(sky.label_set.names) if name.endswith("_h"))


def _components(linked: np.ndarray, measured: np.ndarray) -> np.ndarray:
    reach = linked.copy()
    for _ in range(len(reach)):
        reach = (reach.astype(int) @ reach.astype(int)) > 0
    first = np.where(measured, np.argmax(reach, axis=1), -1)
    return first


def _describe(sky, component, anchored, shared, is_anchor, reference) -> tuple[str, ...]:
    """One message for each set of labels that share a statement."""
    statements: dict[str, list[str]] = {}
    for label, name in enumerate(sky.label_set.names):
        for c in np.unique(component[label][component[label] >= 0]):
            member = np.flatnonzero(component[label] == c)
            names = ", ".join(sky.names[s] for s in member)
            if anchored[label, member[0]]:
                continue
            if len(member) == 1:
                text = f"{names} shares no star with another survey: its offset is zero by convention"
            elif reference is not None and sky.index(reference) in member:
                text = f"no anchor reaches {names}: the scale is that of {reference}, by convention"
            else:
                text = f"no anchor reaches {names}: their mean offset is zero, by convention"
            statements.setdefault(text, []).append(name)
        for s in np.flatnonzero((component[label] >= 0) & ~is_anchor):
            common = shared[label, s].copy()
            common[s] = 0
            if 0 < common.sum() < FEW:
                text = f"{sky.names[s]} is tied by only {common.sum()} common stars: trends rest on the prior"
                statements.setdefault(text, []).append(name)
        if (component[label] < 0).any():
            names = ", ".join(sky.names[s] for s in np.flatnonzero(component[label] < 0))
            statements.setdefault(f"not measured by {names}: no offset", []).append(name)
    return tuple(f"{', '.join(labels)}: {text}" for text, labels in statements.items())
