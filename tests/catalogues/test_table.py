"""Rows of a table: which count, which star each is, what its flags say; what is wrong is refused by name."""

import numpy as np
import pytest
from astropy.io import fits

from jaxspec.catalogues.read import read_survey
from jaxspec.catalogues.spec import parse_file
from jaxspec.errors import InputError
from tests.tables import FOUR, read, table


def test_flags_and_selection(tmp_path):
    made = table(flag=np.array([0, 4, 1 << 40]), text=["good", "bad", "good"], snr=[10.0, 80.0, np.nan])
    out = read(tmp_path, made, flags="flag")
    assert out.flags.tolist() == [0, 1, 1]
    out = read(
        tmp_path,
        made,
        flags=[
            {"column": "flag", "bits": [40], "meaning": "high bit"},
            {"column": "text", "not_values": ["good"]},
            {"column": "snr", "below": 20},
        ],
    )
    assert out.flags.tolist() == [4, 2, 1] and out.flag_meaning[1] == "high bit"
    assert read(tmp_path, made, flags={"column": "text", "contains": "ba"}).flags.tolist() == [0, 1, 0]
    out = read(tmp_path, made, select={"snr": [50, None]})
    assert len(out) == 1 and "2 of 3 rows not selected" in out.notes
    assert len(read(tmp_path, made, select={"text": "good"})) == 2
    assert len(read(tmp_path, made, select={"flag": [0, 4, 5]})) == 2


def test_positions_in_degrees_or_as_text(tmp_path):
    made = table(
        ra=[10.0, 11.0, 12.0], dec=[-5.0, 0.0, 5.0], r=["00:40:00", "", "00:48:00"], d=["-05:00:00", "", "5"]
    )
    out = read(tmp_path, made, identifiers={"ra": "ra", "dec": "dec", "epoch": 2016})
    assert out.identifiers.ra.tolist() == [10, 11, 12] and out.identifiers.epoch[0] == 2016
    out = read(tmp_path, made, identifiers={"ra": "r", "dec": "d"})
    np.testing.assert_allclose(out.identifiers.ra, [10, np.nan, 12])
    assert out.identifiers.named.tolist() == [True, False, True]
    made["dec"] = [100.0, 0.0, 0.0]
    with pytest.raises(InputError, match=r"column dec row 0.*100 deg"):
        read(tmp_path, made, identifiers={"ra": "ra", "dec": "dec"})


@pytest.mark.parametrize(
    ("change", "entry", "match"),
    [
        ({}, {"columns": {"teff": "T_eff"}, "errors": {"teff": 50}}, r"columns\.teff.*'T_eff'.*perhaps Teff"),
        ({}, {"errors": {"teff": "sigma"}}, r"errors\.teff: found no column 'sigma'"),
        ({}, {"errors": {"teff": 50}}, r"errors\.logg.*or one number.*logg: 0\.1"),
        ({}, {"identifiers": {"hip": "hipparcos"}}, r"identifiers\.hip.*'hipparcos'"),
        ({}, {"identifiers": {}}, "no row with an identifier"),
        ({"HIP": [0, -1, 0]}, {}, "no row with an identifier"),
        ({"HIP": ["x1", "x2", "x3"]}, {}, r"identifiers\.hip row 0.*'x1'"),
        ({"HIP": [5722222, 450000, 6200000]}, {}, "1 to 120404"),
        ({"Teff": ["a", "b", "c"]}, {}, "column Teff row 0.*'a'.*a number"),
        ({"Teff": [5.772, 4.5, 6.2]}, {}, r"label teff row 0.*5\.772.*unit"),
        ({"feh": [7.5, 7.0, 6.0]}, {}, "label fe_h row 0.*missing:"),
        ({"MgFe": [9.99, 0.3, 0.4]}, {}, "label mg_h row 0.*missing:"),
        ({"Teff": np.ones((3, 2))}, {}, "column Teff.*one number a row"),
        ({}, {"columns": {"mg_fe": "MgFe"}, "errors": {"mg_fe": 0.1}}, "no fe_h.*map fe_h"),
        ({}, {"select": {"Teff": [10, 20]}}, "none of 3 rows left"),
        ({}, {"format": "galha"}, "posterior or one of apogee"),
        ({}, {"solar_scale": "asplund"}, "solar_scale.*asplund2009"),
        ({}, {"file": "none.fits"}, r"none\.fits.*no such file"),
        ({}, {"columns": {"al_h": "logg"}, "errors": {"al_h": 0.1}}, "some of teff, logg"),
    ],
)
def test_wrong_tables_are_refused_by_name(tmp_path, change, entry, match):
    with pytest.raises(InputError, match=match):
        read(tmp_path, table(**change), solar="asplund2009", **entry)


def test_wrong_units_and_empty_tables(tmp_path):
    made = table()
    made["Teff"].unit = "mag"
    with pytest.raises(InputError, match=r"t\.fits column Teff.*unit mag.*expected K"):
        read(tmp_path, made)
    made = table()
    made["logg"].unit = "m/s2"
    with pytest.raises(InputError, match=r"column logg.*dex"):
        read(tmp_path, made)
    with pytest.raises(InputError, match=r"t\.fits.*without rows"):
        read(tmp_path, table()[:0])
    (tmp_path / "x.fits").write_bytes(b"nonsense")
    with pytest.raises(InputError, match=r"x\.fits"):
        read(tmp_path, file="x.fits")


def test_bensby_by_its_column_map_equals_its_own_sums(data):
    path = data / "catalogues/bensby2014.fits"
    entry = {"file": str(path), "columns": {"teff": "Teff", "logg": "logg", "fe_h": "Fe_H", "mg_fe": "Mg_Fe"},
             "errors": {"teff": "e_Teff", "logg": "e_logg", "fe_h": "e_Fe_H", "mg_fe": "e_Mg_Fe"},
             "identifiers": {"hip": "HIP", "ra": "_RAJ2000", "dec": "_DEJ2000"}}  # fmt: skip
    out = read_survey(parse_file([entry], ".").tables[0], FOUR)
    with fits.open(path) as file:
        rows = file[1].data
        np.testing.assert_allclose(out.labels[:, 3], rows["Mg_Fe"].astype(float) + rows["Fe_H"], atol=1e-6)
        assert out.identifiers.keys["hip"].tolist() == [str(h) for h in rows["HIP"]]
