"""LAMOST: empty rows, [X/Fe], and the quality of a row."""

import numpy as np
import pytest
from astropy.table import Table

from tests.tables import layout


def test_lamost_sentinels_and_quality(tmp_path):
    made = Table({"gaia_source_id": [11, 12], "teff": [5500.0, -9999.0], "teff_err": [60.0, -9999.0],
                  "feh": [-0.3, -9999.0], "feh_err": [0.05, -9999.0], "mg_fe": [0.1, -9999.0],
                  "mg_fe_err": [0.12, -9999.0], "qflag_chi2": ["good", "bad"]})  # fmt: skip
    out, names = layout(tmp_path, made, "lamost")
    assert names == ["teff", "fe_h", "mg_h"] and out.flags.tolist() == [0, 1]
    assert out.labels[0, 4] == pytest.approx(-0.2) and out.errors[0, 4] == pytest.approx(0.13)
    assert np.isnan(out.labels[1]).all()
