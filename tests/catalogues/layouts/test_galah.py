"""GALAH: flags and elements."""

import numpy as np
import pytest
from astropy.table import Table

from jaxspec.catalogues.read import read_survey
from jaxspec.catalogues.spec import parse_file
from jaxspec.labels import NINE_LABELS
from tests.tables import layout


def test_galah_flags(tmp_path):
    made = Table(
        {
            "sobject_id": [1, 2],
            "tmass_id": ["03292572-6933158", "04315446-5740308"],
            "gaiadr3_source_id": np.array([4667213730748377728, 4775063383207773184]),
            "flag_sp": [0, 16],
            "teff": [4230.0, 4870.0],
            "e_teff": [80.0, 90.0],
            "logg": [1.1, 3.0],
            "fe_h": [-0.9, -0.5],
            "e_fe_h": [0.06, 0.08],
            "mg_fe": [0.26, 0.27],
            "e_mg_fe": [0.08, 0.06],
            "flag_mg_fe": [0, 1],
        }
    )
    out, _ = layout(tmp_path, made, "galah")
    assert out.flags.tolist() == [0, 1]
    np.testing.assert_allclose(out.labels[:, 4], [-0.64, np.nan])
    assert out.errors[0, 4] == pytest.approx(0.1) and out.errors[0, 1] == pytest.approx(0.1)


def test_a_real_release(data):
    table = parse_file([{"file": "galah_dr3_halo.fits", "format": "galah"}], data / "catalogues").tables[0]
    out = read_survey(table, NINE_LABELS)
    assert (np.isfinite(out.labels).mean(0) > 0.95).all()
    silicon = out.labels[:, 8] - out.labels[:, 2]
    assert 0.1 < np.nanmedian(silicon) < 0.4  # halo stars are rich in alpha elements
