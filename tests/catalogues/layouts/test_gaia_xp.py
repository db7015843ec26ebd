"""Labels from XP spectra: columns of two papers, one of them a vector."""

import numpy as np
import pytest
from astropy.table import Table

from jaxspec.labels import label_set
from tests.tables import layout


def test_gaia_xp_of_two_papers(tmp_path):
    made = Table({"source_id": [11], "teff_xgboost": [5000.0], "logg_xgboost": [3.0], "mh_xgboost": [-0.5]})
    out, names = layout(tmp_path, made, "gaia_xp", label_set("teff", "logg", "m_h"))
    assert names == ["teff", "logg", "m_h"]
    np.testing.assert_allclose(out.errors[0], [50.0, 0.08, 0.1])
    # [M/H] taken as [Fe/H] only when asked.
    out, _ = layout(tmp_path, made, "gaia_xp", columns={"fe_h": "mh_xgboost"}, errors={"fe_h": 0.1})
    assert out.labels[0, 2] == pytest.approx(-0.5)
    made = Table({"gdr3_source_id": [11, 12], "quality_flags": [7, 8],
                  "stellar_params_est": [[5.8, -0.1, 4.4, 0.0, 1.0]] * 2,
                  "stellar_params_err": [[0.05, 0.04, 0.03, 0.0, 0.1]] * 2})  # fmt: skip
    out, _ = layout(tmp_path, made, "gaia_xp", label_set("teff", "logg", "fe_h"))
    np.testing.assert_allclose(out.labels[0], [5800.0, 4.4, -0.1])
    np.testing.assert_allclose(out.errors[0], [50.0, 0.03, 0.04])
    assert out.flags.tolist() == [0, 1]
