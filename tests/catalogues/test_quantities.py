"""Columns become labels and their covariance: units, missing values, errors, sums and solar scales."""

import numpy as np
import pytest
from astropy.table import MaskedColumn

from jaxspec.catalogues.solar import ASPLUND2005, ASPLUND2009
from jaxspec.errors import InputError
from tests.tables import read, table


def test_a_column_map_gives_labels_and_their_covariance(tmp_path):
    out = read(tmp_path)
    np.testing.assert_allclose(
        out.labels[:, :3], np.array([[5772, 4.44, 0], [4500, 2, -0.5], [6200, 4.1, -1.5]])
    )
    np.testing.assert_allclose(out.labels[:, 3], [0.0, -0.2, -1.1])  # [Mg/Fe] + [Fe/H]
    np.testing.assert_allclose(
        out.errors[:, :3], np.array([[20, 0.1, 0.03], [40, 0.1, 0.04], [60, 0.1, 0.05]])
    )
    np.testing.assert_allclose(out.errors[:, 3], [0.05, 0.05, 0.13])
    # [Mg/H] shares the error of [Fe/H].
    np.testing.assert_allclose(out.covariance[:, 2, 3], np.array([0.03, 0.04, 0.05]) ** 2)
    np.testing.assert_allclose(out.covariance, np.swapaxes(out.covariance, 1, 2))
    assert np.count_nonzero(out.covariance[0]) == 6
    assert out.name == "t" and len(out.provenance["sha256"]) == 64 and out.solar.startswith("not stated")
    again = read(
        tmp_path,
        columns={"teff": "TEFF", "fe_h": "FEH", "mg_h": {"column": "mgfe", "relative_to": "fe_h"}},
        errors={"teff": "e_teff", "fe_h": "e_feh", "mg_h": "e_mgfe"},
    )
    np.testing.assert_array_equal(again.covariance[:, 2:, 2:], out.covariance[:, 2:, 2:])
    assert np.isnan(again.labels[:, 1]).all()  # a label that the table does not have


def test_units_are_converted_and_can_be_stated(tmp_path):
    made = table(Teff=np.array([5.772, 4.5, 6.2]), e_Teff=np.array([0.02, 0.04, 0.06]))
    columns = {"teff": {"column": "Teff", "unit": "kK"}}
    out = read(tmp_path, made, columns=columns, errors={"teff": "e_Teff"})
    np.testing.assert_allclose(out.labels[:, 0], [5772, 4500, 6200])
    np.testing.assert_allclose(out.errors[:, 0], [20, 40, 60])
    again = read(tmp_path, made, columns={"teff": "Teff"}, errors={"teff": "e_Teff"}, units={"teff": "kK"})
    np.testing.assert_array_equal(again.labels, out.labels)
    made["Teff"].unit = made["e_Teff"].unit = "kK"
    out = read(tmp_path, made, columns={"teff": "Teff"}, errors={"teff": "e_Teff"})
    np.testing.assert_allclose(out.labels[:, 0], [5772, 4500, 6200])


def test_no_value_in_its_many_forms(tmp_path):
    made = table(
        Teff=MaskedColumn([5772.0, 4500.0, 6200.0], mask=[False, True, False]),
        logg=np.array([-9999.0, np.nan, 4.1]),
        feh=np.array([9.99, -0.5, -1.5], np.float32),
    )
    out = read(tmp_path, made, missing=[9.99])
    np.testing.assert_array_equal(np.isnan(out.labels), [[0, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]])
    assert (out.covariance[np.isnan(out.labels)] == 0).all()
    assert any("mg_h: 1 values without fe_h" in note for note in out.notes)


def test_errors_of_zero_missing_errors_and_empty_cells(tmp_path):
    made = table(MgFe=[0.0, 0.3, 0.4], e_MgFe=[0.0, 0.0, 0.12], e_feh=[0.03, np.nan, 0.05])
    out = read(tmp_path, made)
    np.testing.assert_array_equal(np.isnan(out.labels[:, 2:]), [[0, 1], [1, 1], [0, 0]])
    notes = " ".join(out.notes)
    assert "mg_h: 1 empty cells" in notes and "mg_h: 1 errors of 0 raised" in notes
    assert "fe_h: 1 values without an error left out" in notes
    columns = {"fe_h": {"column": "feh", "error": "e_feh", "otherwise": 0.2}}
    np.testing.assert_allclose(
        read(tmp_path, made, columns=columns, errors={}).errors[:, 2], [0.03, 0.2, 0.05]
    )


def test_two_sided_errors_are_averaged(tmp_path):
    made = table(up=[10.0, 20.0, 30.0], down=[-30.0, -20.0, -10.0])
    out = read(tmp_path, made, columns={"teff": "Teff"}, errors={"teff": ["up", "down"]})
    np.testing.assert_allclose(out.errors[:, 0], 20.0)


def test_solar_scales_are_converted_and_recorded(tmp_path):
    out = read(tmp_path, solar_scale="asplund2005", solar="asplund2009")
    for j, name in ((2, "fe_h"), (3, "mg_h")):
        shift = ASPLUND2005[name] - ASPLUND2009[name]
        np.testing.assert_allclose(out.labels[:, j] - read(tmp_path).labels[:, j], shift, atol=1e-12)
    assert out.solar == "asplund2009, converted from asplund2005"
    # A(X) is the same number on every scale.
    absolute = dict(columns={"mg_h": {"column": "MgA", "absolute": True}}, errors={"mg_h": 0.1})
    made = table(MgA=np.array([7.53, 7.33, 6.43]))
    np.testing.assert_allclose(
        read(tmp_path, made, solar="grevesse2007", **absolute).labels[:, 3], [0, -0.2, -1.1], atol=1e-6
    )
    with pytest.raises(InputError, match=r"solar_scale.*the Sun's A\(X\)"):
        read(tmp_path, made, **absolute)
    given = read(tmp_path, solar_scale={"fe_h": 7.5, "mg_h": 7.58}, solar="grevesse2007")
    np.testing.assert_allclose(given.labels[:, 2] - read(tmp_path).labels[:, 2], 0.05, atol=1e-12)
