"""The summary over skies says when intervals are too narrow, and what is gained."""

import numpy as np
import pytest

from benchmarks.skies import TERMS, summary


@pytest.mark.parametrize(("spread", "honest"), [(1.0, True), (1.5, False)])
def test_intervals_that_are_too_narrow_are_seen(rng, spread, honest):
    lines = [
        {
            "seconds": 1.0,
            "z": {term: (spread * rng.normal(size=36)).tolist() for term in TERMS},
            "rms": {"joint": [1.0] * 9, "pairwise": [2.0] * 9, "reported": [3.0] * 9},
        }
        for _ in range(50)
    ]
    found = summary(lines)
    for term in TERMS:
        assert (0.88 < found[term]["coverage_90"] < 0.92) is honest
        assert (found[term]["ks_p"] > 1e-3) is honest
        # 50 values of each of 36 offsets: one of 1.5 times the spread is found out in 37 % of cases.
        assert (found[term]["ks_of_each_below_0.05"] < 0.2) is honest
        assert 0.0 < found[term]["ks_of_each_smallest"] < 0.2
        np.testing.assert_allclose(found[term]["sd"], spread, rtol=0.05)
    assert set(found["pairwise_over_joint"].values()) == {2.0}
