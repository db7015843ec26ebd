"""A catalogue keeps its rows together, and says which of them can be used."""

import dataclasses

import numpy as np
import pytest

from jaxspec.catalogues.catalogue import Catalogue
from jaxspec.catalogues.identifiers import identifiers
from jaxspec.errors import InputError
from tests.tables import TWO


@pytest.fixture
def three() -> Catalogue:
    """Three stars: whole; one label missing and flagged; an error missing."""
    labels = np.array([[5772.0, 0.0], [4500.0, np.nan], [6200.0, -1.5]])
    covariance = np.zeros((3, 2, 2))
    covariance[:, 0, 0], covariance[:, 1, 1] = [400.0, 900.0, 1600.0], [0.0025, 0.0, np.nan]
    covariance[0, 0, 1] = covariance[0, 1, 0] = 0.5
    return Catalogue(
        "three",
        TWO,
        identifiers(3, hip=[1, 2, 3], ra=np.array([10.0, 20.0, 30.0]), dec=np.zeros(3)),
        labels,
        covariance,
        np.array([0, 4, 0]),
        {4: "suspect"},
        names=("a", "b", "c"),
        files=("a1.fits|a2.fits", "", "c.fits"),
        facts={"velocity": np.array([1.0, 2.0, np.nan])},
        cluster=np.array(["M 67", "", "M 67"], object),
        provenance={"file": "three.fits"},
    )


def test_errors_are_the_roots_of_variances(three):
    np.testing.assert_allclose(three.errors, [[20.0, 0.05], [30.0, np.nan], [40.0, np.nan]])
    assert three.complete.tolist() == [True, False, False]
    assert three.trusted.tolist() == [True, False, True]


def test_facts_that_a_table_lacks_are_nan(three):
    np.testing.assert_array_equal(three.velocity, [1.0, 2.0, np.nan])
    for values in (three.snr, three.vmic, three.vsini):
        assert values.shape == (3,) and np.isnan(values).all()


@pytest.mark.parametrize("which", [np.array([2, 0]), np.array([False, True, True])])
def test_rows_stay_together(three, which):
    some = three.rows(which)
    index = np.arange(3)[which]
    assert len(some) == len(index) and some.label_set == TWO and some.flag_meaning == {4: "suspect"}
    for i, j in enumerate(index):
        np.testing.assert_array_equal(some.labels[i], three.labels[j])
        np.testing.assert_array_equal(some.covariance[i], three.covariance[j])
        assert some.names[i] == three.names[j] and some.files[i] == three.files[j]
        assert some.identifiers.label(i) == three.identifiers.label(int(j))
        assert some.identifiers.ra[i] == three.identifiers.ra[j] and some.cluster[i] == three.cluster[j]
        assert some.flags[i] == three.flags[j]
        np.testing.assert_equal(some.velocity[i], three.velocity[j])
    bare = dataclasses.replace(three, names=(), files=(), cluster=None).rows(which)
    assert bare.names == bare.files == () and bare.cluster is None


def test_a_star_and_file_may_be_there_once(three):
    three.check_unique()
    dataclasses.replace(three, names=("a", "a", "a")).check_unique()  # three spectra of a star
    with pytest.raises(InputError, match=r"three\.fits rows 0 and 2: found the same star 'a' twice"):
        dataclasses.replace(three, names=("a", "b", "a"), files=()).check_unique()
    dataclasses.replace(three, names=("", "", "c"), files=()).check_unique()  # stars without a name
