"""Tables and posteriors become stars, and what is wrong with them is named."""

import numpy as np
import pytest
from astropy.table import Table

from jaxspec.errors import InputError
from jaxspec.populations.known import published
from jaxspec.populations.read import read_stars
from jaxspec.populations.stars import Stars


@pytest.fixture
def table():
    return Table(
        {
            "source": ["a", "b", "c", "d"],
            "Fe_H": [0.1, -0.2, np.nan, 0.0],
            "e_fe_h": [0.05, 0.04, 0.03, 0.05],
            "mg_fe": [0.0, 0.2, np.nan, 0.1],
            "mg_fe_err": [0.0, 0.06, 0.05, 0.07],
            "rho_fe_h_mg_fe": [0.0, -0.5, 0.0, 0.0],
            "limit_mg_fe": [0, 0, 0, 1],
            "snr": [50.0, 60.0, 70.0, 80.0],
        }
    )


def test_a_table_of_labels(table, tmp_path, caplog):
    table.write(tmp_path / "t.fits")
    with caplog.at_level("INFO"):
        stars = read_stars(tmp_path / "t.fits")
    assert stars.labels == ("fe_h", "mg_fe") and stars.names == ("a", "b", "d")
    np.testing.assert_allclose(stars.values, [[0.1, np.nan], [-0.2, 0.2], [0.0, np.nan]])
    np.testing.assert_allclose(stars.covariance[1], [[0.0016, -0.0012], [-0.0012, 0.0036]])
    assert "1 of 4 stars have none" in caplog.text and "1 upper limits of mg_fe" in caplog.text
    assert "empty cells" in caplog.text


@pytest.mark.parametrize(
    ("change", "labels", "message"),
    [
        (lambda t: None, ("fe_h", "al_fe"), r"t\.ecsv: found columns source.*expected a column al_fe"),
        (lambda t: t.remove_column("e_fe_h"), ("fe_h",), "a column e_fe_h"),
        (lambda t: t.replace_column("e_fe_h", [-0.1, 1, 1, 1]), ("fe_h",), "error of fe_h, row 0.*-0.1"),
        (lambda t: t.keep_columns(["source", "snr"]), None, "no abundances with errors"),
        (lambda t: t.replace_column("mg_fe", [np.nan] * 4), ("mg_fe",), "no value of mg_fe"),
    ],
)
def test_what_is_wrong_with_a_table_is_named(table, tmp_path, change, labels, message):
    change(table)
    table.write(tmp_path / "t.ecsv")
    with pytest.raises(InputError, match=message):
        read_stars(tmp_path / "t.ecsv", labels)


def test_relative_to_iron_and_back(rng):
    stars = Stars.with_errors(("mg_h", "fe_h", "teff"), rng.normal(size=(20, 3)), np.full((20, 3), 0.1))
    relative = stars.relative_to_iron()
    assert relative.labels == ("mg_fe", "fe_h", "teff")
    np.testing.assert_allclose(relative.values[:, 0], stars.values[:, 0] - stars.values[:, 1])
    np.testing.assert_allclose(relative.covariance[0], [[0.02, -0.01, 0], [-0.01, 0.01, 0], [0, 0, 0.01]])
    back = relative.relative_to_hydrogen()
    np.testing.assert_allclose(back.values, stars.values)
    np.testing.assert_allclose(back.covariance, stars.covariance, atol=1e-15)


def test_published_sets(data):
    """Numbers of stars and of classes as the tables have them."""
    bensby = published("bensby")
    assert len(bensby.stars) == 600 and np.bincount(bensby.truth[bensby.truth >= 0]).tolist() == [340, 177]
    harps = published("harps")
    assert len(harps.stars) == 996 and np.bincount(harps.truth[harps.truth >= 0]).tolist() == [891, 56]
    # 9.99 is the table's word for no value.
    assert np.nanmax(np.abs(harps.stars.values)) < 2.0 and np.nanmin(harps.stars.errors) > 0.0


def test_published_sets_need_their_table(monkeypatch):
    monkeypatch.delenv("JAXSPEC_DATA", raising=False)
    with pytest.raises(InputError, match=r"JAXSPEC_DATA.*catalogue=PATH"):
        published("bensby")
