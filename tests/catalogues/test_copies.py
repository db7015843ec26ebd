"""Tables of the same measurements are told from independent ones, whatever they are called."""

import numpy as np
import pytest

from jaxspec.catalogues.copies import check_copies, find_copies
from jaxspec.catalogues.crossmatch import crossmatch
from jaxspec.errors import InputError
from tests.tables import catalogue

N = 60
HIP = np.arange(1, N + 1)


def measured(rng, truth, share=1.0):
    return truth + share * rng.normal(size=truth.shape) * [50.0, 0.05]


@pytest.fixture
def truth(rng):
    return np.stack([rng.uniform(4500, 6500, N), rng.normal(-0.3, 0.3, N)], 1)


def check(a, b):
    tables = [catalogue("a", a, hip=HIP), catalogue("b", b, hip=HIP)]
    return check_copies(tables, crossmatch(tables))


def test_independent_measurements_pass(rng, truth):
    """Forty pairs of surveys, with right errors or errors stated threefold, rounded as tables are."""
    for share in (1.0, 0.35):
        for _ in range(20):
            a, b = (np.round(measured(rng, truth, share) / [10, 0.01]) * [10, 0.01] for _ in range(2))
            assert check(a, b) == []


@pytest.mark.parametrize("shift", [[0.0, 0.0], [30.0, 0.07]])
def test_one_table_under_two_names_is_refused(rng, truth, shift):
    a = measured(rng, truth)
    with pytest.raises(InputError, match=r"tables a and b.*the same measurements of 60 of 60.*leave b out"):
        check(a, a + shift)
    with pytest.raises(InputError, match="tables a and b"):  # rounded, and in another order
        tables = [catalogue("a", a, hip=HIP), catalogue("b", np.round(a, 2)[::-1], hip=HIP[::-1])]
        check_copies(tables, crossmatch(tables))


def test_a_compilation_is_told(rng, truth):
    a, b = measured(rng, truth), measured(rng, truth)
    b[:20] = a[:20]
    (note,) = check(a, b)
    assert "20 of 60 common stars" in note or "21 of 60" in note
    mean = a + 0.02 * rng.normal(size=a.shape) * [50.0, 0.05] * 5
    with_many = check(a, mean)
    assert any("far less than the quoted errors" in note for note in with_many)


def test_one_shared_label_among_others(rng, truth):
    """Only what both have is compared; a second label that is independent says that the table is."""
    a, b = measured(rng, truth), measured(rng, truth)
    b[:, 0] = a[:, 0]
    (note,) = check(a, b)
    assert "teff" in note and "fe_h" not in note
    b[:, 1] = np.nan
    with pytest.raises(InputError, match="the same measurements"):
        check(a, b)


def test_of_several_rows_the_copy_is_found(rng, truth):
    a = measured(rng, truth)
    both = np.concatenate([measured(rng, truth), a])
    tables = [catalogue("a", a, hip=HIP), catalogue("b", both, hip=np.concatenate([HIP, HIP]))]
    (pair,) = find_copies(tables, crossmatch(tables))
    assert pair.copied == pair.common == N
