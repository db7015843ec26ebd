"""Stars that tie surveys: which they are, and how visits are combined and arranged for the likelihood."""

import numpy as np
import pytest

from jaxspec.errors import InputError
from jaxspec.surveys.basis import Basis
from jaxspec.surveys.observations import make_sky
from jaxspec.surveys.scales import make_scales
from jaxspec.surveys.tied import VISIT_CHI2, arrange, combine_visits, index_ties, measurements_of
from tests.surveys.skies import LABELS, survey


@pytest.fixture
def sky(rng):
    """Three surveys of 30 stars, some visited twice, some values missing, two groups of stars."""
    surveys = []
    for name in ("a", "bb", "ccc"):
        star = rng.choice(30, 18, replace=False)
        one = survey(name, np.append(star, star[:4]))
        one.values[rng.random(one.values.shape) < 0.2] = np.nan
        surveys.append(one)
    group = np.where(np.arange(30) < 8, np.arange(30) // 4, -1)
    return make_sky(LABELS, surveys, 30, group)


def rows_of(sky):
    """Rows with any value, as `{star: [(survey, row), ...]}`."""
    found = {}
    for s, one in enumerate(sky.surveys):
        for row in np.flatnonzero((~np.isnan(one.values)).any(axis=1)):
            found.setdefault(int(one.star[row]), []).append((s, int(row)))
    return found


def test_the_stars_that_tie_and_their_rows(sky):
    index, rows = index_ties(sky), rows_of(sky)
    expected = sorted(star for star, r in rows.items() if len(r) > 1 or sky.group[star] >= 0)
    assert index.star.tolist() == expected
    for t, star in enumerate(index.star):
        entry = slice(index.start[t], index.start[t + 1])
        own = list(zip(index.survey[entry].tolist(), index.row[entry].tolist(), strict=True))
        assert own == sorted(rows[int(star)])
        assert index.size[t] == len({s for s, _ in own})
        assert index.grouped[t] == (sky.group[star] >= 0)
    # Field stars that one set of surveys saw are of one class, others of another.
    pattern = {t: frozenset(s for s, _ in rows[int(index.star[t])]) for t in np.flatnonzero(~index.grouped)}
    for t, one in pattern.items():
        for u, other in pattern.items():
            assert (index.member[t] == index.member[u]) == (one == other)
    assert index.n_classes == len(set(pattern.values())) and index.n_groups == 2


def test_two_visits_are_combined_by_their_precision(rng):
    """The textbook: with covariances A and B of visits a and b, the mean has the covariance
    (A^-1 + B^-1)^-1, and chi-square is that of their difference under A + B."""
    one = survey("a", [0, 0, 1])
    root = rng.normal(size=(3, 2, 4)) * np.array([40.0, 0.05])[:, None]
    one.covariance[:] = root @ np.swapaxes(root, 1, 2)
    one.values[1] = one.values[0] + [30.0, 0.02]
    sky = make_sky(LABELS, [one, survey("b", [0, 1])])
    scales = make_scales(sky, ())
    found = combine_visits(sky, scales, [np.arange(3), np.arange(2)])
    a, b = np.linalg.inv(one.covariance[:2])
    covariance = np.linalg.inv(a + b)
    mean = covariance @ (a @ one.values[0] + b @ one.values[1])
    assert found.star.tolist() == [0, 1, 0, 1] and found.survey.tolist() == [0, 0, 1, 1]
    np.testing.assert_allclose(scales.to_labels(found.values[0]), mean)
    np.testing.assert_allclose(scales.covariance_to_labels(found.covariance[0]), covariance)
    difference = one.values[1] - one.values[0]
    chi2 = difference @ np.linalg.solve(one.covariance[0] + one.covariance[1], difference)
    np.testing.assert_allclose(found.visit_chi2[0].sum(), chi2)
    assert found.visit_dof.tolist() == [[1.0, 1.0], [0.0, 0.0]] and found.n_suspect == 0
    # A single visit stays as it is.
    np.testing.assert_allclose(scales.to_labels(found.values[1]), one.values[2])


def test_visits_of_different_labels_complete_each_other():
    one = survey("a", [0, 0])
    one.values[0, 1] = one.values[1, 0] = np.nan
    sky = make_sky(LABELS, [one, survey("b", [0])])
    scales = make_scales(sky, ())
    found = combine_visits(sky, scales, [np.arange(2), np.arange(1)])
    np.testing.assert_allclose(scales.to_labels(found.values[0]), [one.values[0, 0], one.values[1, 1]])
    np.testing.assert_allclose(np.diag(scales.covariance_to_labels(found.covariance[0])), [60.0**2, 0.1**2])
    assert found.visit_dof[0].tolist() == [0.0, 0.0] and not found.visit_chi2.any()


def test_flagged_visits_give_way_and_wild_ones_are_marked():
    flagged = survey("a", [0, 0, 1, 1], flagged=np.array([True, False, True, True]))
    flagged.values[:2] = [[9000.0, 4.0], [5500.0, 4.0]]
    wild = survey("b", [0, 0, 1])
    wild.values[:2] = [[5000.0, 4.0], [5000.0 + 1.01 * np.sqrt(2 * 2 * VISIT_CHI2) * 60.0, 4.0]]
    sky = make_sky(LABELS, [flagged, wild])
    scales = make_scales(sky, ())
    found = combine_visits(sky, scales, [np.arange(4), np.arange(3)])
    np.testing.assert_allclose(scales.to_labels(found.values[0]), [5500.0, 4.0])
    # Of star 1 all visits are flagged: both count, and the result is flagged.
    assert found.flagged.tolist() == [False, True, True, False]
    assert found.n_suspect == 1 and not found.visit_dof[1].any()
    wild.values[1, 0] = 5000.0 + 0.99 * np.sqrt(2 * 2 * VISIT_CHI2) * 60.0
    again = combine_visits(sky, scales, [np.arange(4), np.arange(3)])
    assert again.n_suspect == 0 and again.visit_dof[1].tolist() == [1.0, 1.0]


def test_correlations_of_errors_that_nobody_quotes_are_not_read():
    one = survey("a", [0], covariance=np.array([[[3600.0, 5.0], [5.0, 0.01]]]), errors_only=True)
    sky = make_sky(LABELS, [one, survey("b", [0])])
    found = combine_visits(sky, make_scales(sky, ()), [np.arange(1), np.arange(1)])
    assert found.covariance[0, 0, 1] == 0.0 and found.covariance[0, 0, 0] > 0.0


@pytest.mark.parametrize("kind", ["linear", "quadratic"])
def test_blocks_hold_every_measurement_once(sky, kind, rng):
    scales, index = make_scales(sky, ("teff", "logg")), index_ties(sky)
    basis, which = Basis(kind, 2), rng.permutation(len(index))
    blocks, n_field = arrange(sky, scales, basis, index, which)
    rows = measurements_of(sky, scales, index, np.arange(len(index)))
    table = {(int(s), int(v)): i for i, (s, v) in enumerate(zip(rows.star, rows.survey, strict=True))}
    seen = set()
    for number, block in enumerate(blocks):
        assert (sky.group[block.star] >= 0).all() == (number >= n_field)
        for i, star in enumerate(block.star):
            for j, s in enumerate(block.survey[i]):
                row = table[int(star), int(s)]
                seen.add(row)
                np.testing.assert_array_equal(block.present[i, j], ~np.isnan(rows.values[row]))
                np.testing.assert_array_equal(block.values[i, j], np.nan_to_num(rows.values[row]))
                np.testing.assert_array_equal(block.covariance[i, j], rows.covariance[row])
            # The basis linearised about the mean of the star's own measurements is the basis there.
            own = rows.values[[table[int(star), int(s)] for s in block.survey[i]]]
            there = np.isfinite(own)
            u = np.where(there, own, 0.0).sum(0) / np.maximum(there.sum(0), 1)
            u = scales.input_matrix @ u
            np.testing.assert_allclose(
                block.phi[i] + block.slope[i] @ u, basis.values(u[None])[0], atol=1e-12
            )
    assert seen == set(range(len(rows.star)))
    assert sum(len(block.star) for block in blocks) == len(index)


def test_what_cannot_be_tied_is_refused():
    with pytest.raises(InputError, match="no star measured more than once by a, b"):
        index_ties(make_sky(LABELS, [survey(), survey("b", range(20, 40))]))
    many = [survey("a" * (i + 1), range(3)) for i in range(13)]
    with pytest.raises(InputError, match="star 0: found measurements by 13 surveys"):
        index_ties(make_sky(LABELS, many))
