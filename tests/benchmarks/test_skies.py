"""The summary over skies says when intervals are too narrow, and what is gained."""

import numpy as np
import pytest

from benchmarks import skies
from benchmarks.skies import TERMS, summary
from jaxspec.errors import InputError


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


def test_finished_skies_are_kept_for_their_settings(tmp_path, monkeypatch):
    """A longer run goes on with a shorter one's; other stars are refused."""
    made = []
    monkeypatch.setattr(skies, "simulate_sky", lambda seed, config: (made.append(seed) or seed, None))
    monkeypatch.setattr(skies, "fit", lambda sky, *rest: sky)
    monkeypatch.setattr(skies, "standardised", lambda result, *rest: {t: [result + 0.5] * 3 for t in TERMS})
    monkeypatch.setattr(skies, "errors", lambda *rest: {"joint": [1.0] * 9})
    first = list(skies.run_skies(2, 50, "laplace", 10, tmp_path))
    lines = list(skies.run_skies(4, 50, "laplace", 10, tmp_path))
    assert made == [0, 1, 2, 3] and lines[:2] == first
    assert [line["seed"] for line in lines] == made and lines[3]["z"]["teff"] == [3.5] * 3
    assert lines[0]["rms"] == {"joint": [1.0] * 9} and lines[0]["seconds"] < 10.0
    with pytest.raises(InputError, match=r"simulation\.n_stars: found 50"):
        list(skies.run_skies(2, 60, "laplace", 10, tmp_path))
