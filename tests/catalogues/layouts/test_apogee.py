"""APOGEE: masks, elements, and the releases' two ways to state abundances."""

import numpy as np
import pytest
from astropy.table import Table

from jaxspec.catalogues.read import read_survey
from jaxspec.catalogues.spec import parse_file
from jaxspec.labels import NINE_LABELS
from tests.tables import layout


def test_apogee_masks_and_elements(tmp_path):
    made = Table(
        {
            "APOGEE_ID": ["2M00000002+7417074", "2M00000019-1924498", "2M00000032+5737103"],
            "GAIAEDR3_SOURCE_ID": np.array([538028216707715712, 0, 422596679964513792]),
            "TEFF": [4800.0, 5500.0, np.nan],
            "TEFF_ERR": [10.0, 20.0, np.nan],
            "LOGG": [2.5, 4.4, np.nan],
            "LOGG_ERR": [0.02, 0.03, np.nan],
            "FE_H": [0.1, -0.2, np.nan],
            "FE_H_ERR": [0.01, 0.01, np.nan],
            "MG_FE": [0.05, 0.15, np.nan],
            "MG_FE_ERR": [0.02, 0.02, np.nan],
            "MG_FE_FLAG": [1 << 8, 1 << 1, 0],
            "STARFLAG": np.array([1 << 2, 1 << 3, 0]),
            "ASPCAPFLAG": np.array([1 << 7, 0, 1 << 36], np.int64),
        }
    )
    out, names = layout(tmp_path, made, "apogee")
    assert names == ["teff", "logg", "fe_h", "mg_h"]
    # Warnings are no reason: BRIGHT_NEIGHBOR, STAR_WARN, and a grid-edge warning of Mg.
    assert (out.flags != 0).tolist() == [False, True, True]
    assert {out.flag_meaning[int(f)] for f in out.flags if f} == {
        "STARFLAG VERY_BRIGHT_NEIGHBOR",
        "ASPCAPFLAG FERRE_FAIL",
    }
    np.testing.assert_allclose(out.labels[:, 4], [0.15, np.nan, np.nan], atol=1e-9)
    assert out.identifiers.keys["gaia"].tolist() == ["538028216707715712", "", "422596679964513792"]
    assert out.identifiers.keys["tmass"][0] == "00000002+7417074"
    override, _ = layout(tmp_path, made, "apogee", errors={"teff": 90})
    np.testing.assert_allclose(override.errors[:2, 0], 90.0)
    old = made.copy()
    old.rename_columns(["MG_FE", "MG_FE_ERR", "MG_FE_FLAG"], ["MG_H", "MG_H_ERR", "MG_H_FLAG"])
    old, _ = layout(tmp_path, old, "apogee")
    assert old.labels[0, 4] == pytest.approx(0.05) and old.solar == "asplund2005"


def test_real_releases(data):
    content = [
        {"file": "apogee_dr12_hipparcos.fits.gz", "format": "apogee"},
        {"file": "apogee_dr17_halo.fits", "format": "apogee"},
    ]
    old, new = (read_survey(spec, NINE_LABELS) for spec in parse_file(content, data / "catalogues").tables)
    assert np.isfinite(old.labels[:, 0]).sum() == 771 and old.solar == "asplund2005"
    # Rows without results carry APOGEE's own reasons, those with them seldom do.
    empty = np.isnan(old.labels).all(1)
    assert (old.flags[empty] != 0).mean() > 0.9 > 0.1 > (old.flags[~empty] != 0).mean()
    assert (np.isfinite(new.labels).mean(0) > 0.95).all()
    silicon = new.labels[:, 8] - new.labels[:, 2]
    assert 0.1 < np.nanmedian(silicon) < 0.4  # halo stars are rich in alpha elements
