"""Tables of quantities, and a split that depends on nothing but the star."""

import numpy as np
import pytest

from jaxspec.errors import InputError
from jaxspec.foundation.table import PARTS, label, part, short
from tests.foundation.small import universe


def test_a_split_depends_on_the_source_alone():
    source = np.random.default_rng(0).integers(1, 2**62, 40_000)
    whole = part(source, 0)
    assert sum(rows.astype(int) for rows in whole.values()).tolist() == [1] * len(source)
    for name, share in PARTS.items():
        assert whole[name].mean() == pytest.approx(share, abs=5 * np.sqrt(share / len(source)))
    order = np.random.default_rng(1).permutation(len(source))[:500]
    for name, rows in part(source[order], 0).items():
        np.testing.assert_array_equal(rows, whole[name][order])
    # Another seed: the two test sets share as many stars as chance wants.
    other = part(source, 1)["test"]
    assert (whole["test"] & other).mean() == pytest.approx(0.15**2, abs=0.005)


def test_columns_are_names():
    stars = universe(5)
    np.testing.assert_array_equal(stars.columns(["teff", "g"]).values, stars.values[:, [5, 3]])
    assert stars.without(["g"]).names == ("bp_1", "bp_2", "rp_1", "bp_rp", "teff", "logg")
    with pytest.raises(InputError, match=r"'fe_h'.*bp_1 to bp_2, rp_1 to rp_1"):
        stars.columns(["fe_h"])
    assert short(("bp_1", "bp_2", "bp_3", "j_h", "g")) == "bp_1 to bp_3, j_h, g"


def test_labels_have_bounds_and_units():
    assert label("teff").unit == "K" and label("alpha_m").low < 0 < label("alpha_m").high
    with pytest.raises(InputError, match="'bp_1'"):
        label("bp_1")
