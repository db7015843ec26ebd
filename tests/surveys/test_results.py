"""Offsets of a calibration are those of its draws; files hold everything."""

import dataclasses

import numpy as np
import pytest

from jaxspec.errors import InputError
from jaxspec.surveys.basis import KINDS
from jaxspec.surveys.results import POPULATION, TERMS, Calibration
from tests.surveys.skies import calibration, offset_of_draws

STARS = np.array([[5500.0, 4.0, 0.0], [4500.0, 1.5, -1.0], [6400.0, 4.4, 0.3]])


@pytest.mark.parametrize("trend", KINDS)
def test_offsets_are_mean_and_scatter_of_the_draws(trend):
    result = calibration(trend)
    for s, name in enumerate(result.names):
        mean, sd = result.offset(name, STARS)
        draws = offset_of_draws(result, s, result.scales.to_model(STARS)) * [100.0, 0.2, 0.1]
        np.testing.assert_allclose(mean, draws.mean(axis=0), atol=1e-9)
        np.testing.assert_allclose(sd, draws.std(axis=0), atol=1e-9)
    # At the pivot it is the zero point; an anchor has none.
    np.testing.assert_allclose(
        result.offset("a", STARS[:1])[0][0], result.terms["zero_point"][:, 0].mean(axis=0) * [100.0, 0.2, 0.1]
    )
    assert not mean.any() and not sd.any()


@pytest.mark.parametrize("trend", KINDS)
def test_the_table_has_zero_points_slopes_and_scatter_in_the_labels_units(trend):
    result = calibration(trend)
    table = result.offsets()
    rows = {(row["survey"], row["label"], row["term"]): row for row in table}
    # What survey b does not measure, and the anchor, have no rows.
    assert ("b", "fe_h", "zero_point") not in rows and not any(key[0] == "anchor" for key in rows)
    assert len(rows) == len(table) == (3 + 2) * (1 + 2 + 2) + 2
    # Slopes at the pivot, per 1000 K and per dex, as the offset itself changes.
    for j, (term, natural, unit) in enumerate((("teff", 1000.0, "1000 K"), ("logg", 1.0, "1 dex"))):
        step = np.zeros(3)
        step[j] = 1e-3 * natural
        high, low = (result.offset("a", (STARS[0] + sign * step)[None])[0][0] for sign in (1.0, -1.0))
        slope = (high - low) / 2e-3
        for i, label in enumerate(result.label_set):
            row = rows["a", label.name, term]
            np.testing.assert_allclose(row["mean"], slope[i], rtol=1e-3)
            assert row["unit"] == f"{label.unit} / ({unit})"
    np.testing.assert_allclose(rows["a", "logg", "scatter"]["mean"], 0.3 * 0.2)
    np.testing.assert_allclose(rows["b", "teff", "inflation"]["mean"], 0.8)
    np.testing.assert_allclose(rows["a", "", "outlier_rate"]["mean"], 1.0 / (1.0 + np.exp(20.0)))
    assert table.meta["pivot"] == {"teff": 5500.0, "logg": 4.0, "fe_h": 0.0}
    assert table.meta["messages"] == ["teff: made up"]


def test_everything_is_in_the_file(tmp_path):
    result = calibration("spline")
    result.save(tmp_path / "calibration.nc")
    loaded = Calibration.load(tmp_path / "calibration.nc")
    for name in TERMS:
        np.testing.assert_array_equal(loaded.terms[name], result.terms[name])
    for name in POPULATION:
        np.testing.assert_array_equal(loaded.population[name], result.population[name])
    for ours, theirs in zip(
        (*loaded.mixtures, *loaded.quoted), (*result.mixtures, *result.quoted), strict=True
    ):
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(a, b)
    for name in ("pivot", "step", "spread", "natural"):
        np.testing.assert_array_equal(getattr(loaded.scales, name), getattr(result.scales, name))
    np.testing.assert_array_equal(loaded.group_prior.moments, result.group_prior.moments)
    same = {"label_set", "names", "trend", "messages"}
    assert all(getattr(loaded, name) == getattr(result, name) for name in same)
    assert loaded.scales.inputs == (0, 1) and loaded.group_prior.labels == (2,)
    assert loaded.is_anchor.dtype == bool and loaded.measured.tolist() == result.measured.tolist()
    kept = dataclasses.asdict(loaded.diagnostics)
    assert kept["method"] == "laplace" and np.isnan(kept["r_hat"]) and kept["ess"] == 400.0


def test_other_files_and_names_are_refused(tmp_path):
    with pytest.raises(InputError):
        Calibration.load(tmp_path / "nowhere.nc")
    calibration().save(tmp_path / "calibration.nc")
    whole = (tmp_path / "calibration.nc").read_bytes()
    (tmp_path / "cut.nc").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError):
        Calibration.load(tmp_path / "cut.nc")
    with pytest.raises(InputError, match="survey name: found 'c'"):
        calibration().offset("c", STARS)
