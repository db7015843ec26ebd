"""The mock Galaxy is what it says: its components where they belong, its errors as stated."""

import dataclasses

import numpy as np

from jaxspec.labels import NINE_LABELS
from jaxspec.populations.known import mock_accreted, mock_clusters, mock_discs
from jaxspec.populations.mock import IRON_CORE_COLLAPSE, PROCESSES, MockConfig, labels_of, simulate

SMALL = MockConfig(thin=400, thick=200, bulge=80, dwarf_a=80, dwarf_b=60, clusters=10, members=8)


def test_components_have_the_chemistry_that_is_known_of_them():
    mock = simulate(3, SMALL)
    fe, mg, al = (NINE_LABELS.column(mock.truth, name) for name in ("fe_h", "mg_h", "al_h"))
    median = {
        name: np.median(np.stack([fe, mg - fe, al - fe])[:, mock.component == name], axis=1)
        for name in ("thin", "thick", "bulge", "dwarf_a", "dwarf_b")
    }
    assert abs(median["thin"][0]) < 0.2 and abs(median["thin"][1]) < 0.1
    assert median["thick"][0] < -0.15 and median["thick"][1] > 0.2  # alpha-rich
    assert median["bulge"][0] > median["thick"][0]
    assert median["dwarf_b"][0] < median["dwarf_a"][0] < -0.5
    assert median["dwarf_a"][2] < median["thick"][2] - 0.08  # accreted stars are poor in Al
    metal_poor = (mock.component == "thin") & (fe < -0.25)
    assert np.median((mg - fe)[metal_poor]) > np.median((mg - fe)[mock.component == "thin"])


def test_siblings_scatter_by_what_is_stated():
    mock = simulate(4, dataclasses.replace(SMALL, clusters=60, members=15, internal_scatter=0.02))
    rest = [mock.truth[mock.cluster == c, 2:] - mock.truth[mock.cluster == c, 2:].mean(0) for c in range(60)]
    size = np.array([len(x) for x in rest])
    variance = np.concatenate([x**2 for x in rest]).sum() / (7 * (size - 1).sum())
    assert abs(np.sqrt(variance) / 0.02 - 1.0) < 0.05


def test_errors_are_those_of_the_covariance():
    mock = simulate(5, dataclasses.replace(SMALL, thin=3000, missing=0.1))
    there = mock.stars.measured
    assert abs((~there).mean() - 0.1) < 0.01
    whole = there.all(1)
    d = (mock.stars.values - mock.truth)[whole]
    z2 = np.einsum("ni,nij,nj->n", d, np.linalg.inv(mock.stars.covariance[whole]), d)
    assert abs(z2.mean() / 9.0 - 1.0) < 0.05
    error = np.median(mock.stars.errors[:, NINE_LABELS.index("ca_h")][there[:, NINE_LABELS.index("ca_h")]])
    assert abs(error - 0.04) < 0.003


def test_the_sun_is_the_sun(rng):
    sun = labels_of(np.zeros(1), np.zeros(1), rng)
    np.testing.assert_allclose(sun[0, 2:], 0.0, atol=1e-12)
    assert abs(IRON_CORE_COLLAPSE - PROCESSES["fe_h"].core_collapse) < 1e-12
    plateau = labels_of(np.array([-1.0 + np.log10(IRON_CORE_COLLAPSE)]), np.array([-1.0]), rng)
    expected = -1.0 + np.log10(PROCESSES["ca_h"].core_collapse)
    assert abs(NINE_LABELS.column(plateau, "ca_h")[0] - expected) < 1e-6


def test_sets_to_be_judged():
    discs = mock_discs(1, SMALL)
    assert len(discs.stars) == 600 and np.bincount(discs.truth).tolist() == [400, 200]
    assert discs.stars.labels[0] == "fe_h" and "mg_fe" in discs.stars.labels
    galaxy = mock_accreted(1, SMALL)
    assert np.bincount(galaxy.truth).tolist() == [400, 200, 80, 80, 60]
    stars, cluster = mock_clusters(1, SMALL)
    assert len(np.unique(cluster)) == 11 and len(stars) == len(cluster)
