"""Matched catalogues become the sky that the model sees, and nothing is dropped without a note."""

import dataclasses

import numpy as np
import pytest

from jaxspec.catalogues.crossmatch import crossmatch
from jaxspec.errors import InputError
from jaxspec.labels import label_set
from jaxspec.surveys.assemble import StarFlag, assemble
from tests.tables import catalogue


def test_doubtful_matches_are_flagged():
    rng = np.random.default_rng(1)
    n = 60
    labels = np.column_stack([rng.normal(5500, 300, n), rng.normal(0, 0.2, n)])
    other = labels + rng.normal(0, [60.0, 0.05], (n, 2)) + [100.0, 0.0]
    other[17, 0] += 1500.0
    ra = np.linspace(0, 300, n)
    a = catalogue("a", labels, hip=np.arange(1, n + 1), ra=ra, dec=np.zeros(n))
    b = catalogue("b", other, hip=np.arange(1, n + 1), ra=ra + 0.02 * (np.arange(n) == 40), dec=np.zeros(n))
    match = crossmatch([a, b])
    made = assemble([a, b], match)
    assert np.flatnonzero(made.sky.surveys[0].flagged).tolist() == [17, 40]
    assert np.flatnonzero(made.stars.flags & StarFlag.DOUBTFUL_MATCH).tolist() == [17, 40]


def test_copies_and_repeats():
    labels = [[5500.0, 0.1], [5500.0, 0.1], [5550.0, 0.2], [5800.0, 0.0], [np.nan, np.nan]]
    a = catalogue("a", labels, hip=[1, 1, 1, 2, 3])
    match = crossmatch([a])
    made = assemble([a], match)
    assert made.sky.surveys[0].star.tolist() == [0, 0, 1] and made.rows[0].tolist() == [0, 2, 3]
    notes = " ".join(made.notes)
    assert "1 exact copies" in notes and "1 further rows" in notes and "1 rows without any label" in notes
    assert made.stars.flags[0] & StarFlag.REPEATED and not made.stars.flags[1] & StarFlag.REPEATED
    first = assemble([a], match, duplicates=["first"])
    assert first.rows[0].tolist() == [0, 3] and "left out" in " ".join(first.notes)
    with pytest.raises(InputError, match=r"table a, rows 0 and 2.*HIP 1"):
        assemble([a], match, duplicates=["error"])


def test_clusters_are_groups_of_two_or_more():
    a = catalogue("a", hip=[1, 2, 3, 4], cluster=np.array(["NGC 6819", "M 67", "NGC 6819", ""], object))
    made = assemble([a], crossmatch([a]))
    assert made.sky.group.tolist() == [0, -1, 0, -1]


def test_stars_carry_every_identifier_of_their_rows():
    a = catalogue("a", hip=[1, 2])
    b = catalogue(
        "b", hip=[2], gaia=np.array([20]), ra=np.array([5.0]), dec=np.array([6.0]), flags=np.array([4])
    )
    made = assemble([a, b], crossmatch([a, b]))
    assert made.stars.identifier.tolist() == ["HIP 1", "HIP 2"]
    assert made.stars.keys["gaia"].tolist() == ["", "20"] and made.stars.ra[1] == 5.0
    assert made.sky.surveys[1].flagged.tolist() == [True]
    assert made.stars.flags[1] & StarFlag.SURVEY_FLAG and made.stars.flags[0] & StarFlag.ONE_SURVEY


def test_catalogues_of_other_labels_do_not_mix():
    a = catalogue("a", hip=[1])
    b = dataclasses.replace(a, name="b", label_set=label_set("teff", "logg"))
    with pytest.raises(InputError, match="table b"):
        assemble([a, b], crossmatch([a, b]))
    with pytest.raises(InputError, match="no row with a label"):
        empty = catalogue("a", [[np.nan, np.nan]], hip=[1])
        assemble([empty], crossmatch([empty]))
