"""Tables become labels: by a column map, by the layouts of surveys, and not at all where they are wrong."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import MaskedColumn, Table

from jaxspec.errors import InputError
from jaxspec.io.solar import ASPLUND2005, ASPLUND2009, GREVESSE2007, SOLAR_SCALES, solar_scale
from jaxspec.labels import NINE_LABELS, label_set
from jaxspec.surveys.readers import label_names, parse_file, read_survey

FOUR = label_set("teff", "logg", "fe_h", "mg_h")


def table(**change) -> Table:
    made = Table(
        {
            "HIP": [1, 2, 3],
            "Teff": [5772.0, 4500.0, 6200.0],
            "e_Teff": [20.0, 40.0, 60.0],
            "logg": [4.44, 2.0, 4.1],
            "feh": [0.0, -0.5, -1.5],
            "e_feh": [0.03, 0.04, 0.05],
            "MgFe": [0.0, 0.3, 0.4],
            "e_MgFe": [0.04, 0.03, 0.12],
        }
    )
    for name, values in change.items():
        if values is None:
            made.remove_column(name)
        else:
            made[name] = values
    return made


ENTRY = {
    "columns": {"teff": "Teff", "logg": "logg", "fe_h": "feh", "mg_fe": "MgFe"},
    "errors": {"teff": "e_Teff", "logg": 0.1, "fe_h": "e_feh", "mg_fe": "e_MgFe"},
    "identifiers": {"hip": "HIP"},
}


def read(tmp_path, made=None, labels=FOUR, solar=None, **entry):
    path = tmp_path / "t.fits"
    (table() if made is None else made).write(path, overwrite=True)
    content = {**ENTRY, "file": "t.fits", **entry}
    return read_survey(parse_file([content], tmp_path).tables[0], labels, solar)


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


def test_solar_scales_agree_where_papers_took_them_over():
    assert ASPLUND2005 == GREVESSE2007
    assert all(len(scale) == 7 and all(4 < v < 8 for v in scale.values()) for scale in SOLAR_SCALES.values())
    with pytest.raises(InputError, match="grevesse2007"):
        solar_scale("grevesse2008")
    with pytest.raises(InputError, match="mg_h"):
        solar_scale({"mg_h": 15.0})


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


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ([], "a list of tables"),
        ({"tables": [{"columns": {}}]}, "table 1, file"),
        ({"tables": [{"file": "a.fits", "colums": {}}]}, "colums.*unknown entry.*columns"),
        ({"tables": [{"file": "a.fits", "columns": {"tef": "T"}}]}, "tef.*unknown label"),
        ({"tables": [{"file": "a.fits", "columns": ["teff"]}]}, "labels and their columns"),
        ({"tables": [{"file": "a.fits", "columns": {"teff": 3}}]}, "entries column"),
        ({"tables": [{"file": "a.fits", "columns": {"mg_h": "a", "mg_fe": "b"}}]}, "mg_h twice"),
        ({"tables": [{"file": "a.fits", "columns": {"teff": "T"}, "errors": {"logg": 1}}]}, "errors.logg"),
        ({"tables": [{"file": "a.fits", "errors": {"teff": -1}}]}, "errors.teff.*positive number"),
        ({"tables": [{"file": "a.fits", "anchor": "yes"}]}, "anchor.*true or false"),
        ({"tables": [{"file": "a.fits", "identifiers": {"ra": "RA"}}]}, "both coordinates"),
        ({"tables": [{"file": "a.fits", "identifiers": {"hipp": "HIP"}}]}, "hipp.*unknown entry.*hip"),
        ({"tables": [{"file": "a.fits"}, {"file": "a.fits"}]}, "2 tables named a"),
        ({"tables": [{"file": "$NO_SUCH_VARIABLE/a.fits"}]}, "a variable that is set"),
        ({"tables": [{"file": "a.fits"}], "labels": ["teff", "x"]}, "labels, x.*unknown label"),
        ({"tables": [{"file": "a.fits", "zero_point_error": {"teff": 9}}]}, "anchor: true"),
        ({"tables": [{"file": "a.fits", "flags": {"column": "f", "bits": [70]}}]}, "bits.*0 to 62"),
        ({"tables": [{"file": "a.fits", "duplicates": "drop"}]}, "keep, first or error"),
    ],
)
def test_entries_that_are_not_understood_are_named(content, match):
    with pytest.raises(InputError, match=match):
        parse_file(content, ".")


def test_a_file_may_be_a_list_a_mapping_or_one_table(tmp_path, monkeypatch):
    monkeypatch.setenv("SOME_FOLDER", "/somewhere")
    one = {"file": "$SOME_FOLDER/b.fits"}
    assert parse_file(one, tmp_path).tables[0].file.as_posix() == "/somewhere/b.fits"
    assert parse_file([one], tmp_path) == parse_file({"tables": [one]}, tmp_path)
    assert parse_file({"surveys": [{"path": one["file"]}]}, tmp_path) == parse_file(one, tmp_path)
    with pytest.raises(InputError, match="both path and file"):
        parse_file([{**one, "path": "a.fits"}], tmp_path)
    named = parse_file({"tables": {"first": {"file": "a.fits"}}}, tmp_path).tables[0]
    assert named.name == "first" and named.file == tmp_path / "a.fits"


# --- layouts of surveys


def layout(tmp_path, made, name, labels=NINE_LABELS, **entry):
    made.write(tmp_path / "s.fits", overwrite=True)
    content = {"file": "s.fits", "format": name, **entry}
    spec = parse_file([content], tmp_path).tables[0]
    return read_survey(spec, labels), label_names((spec,))


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


def test_lamost_and_gaia_xp(tmp_path):
    made = Table({"gaia_source_id": [11, 12], "teff": [5500.0, -9999.0], "teff_err": [60.0, -9999.0],
                  "feh": [-0.3, -9999.0], "feh_err": [0.05, -9999.0], "mg_fe": [0.1, -9999.0],
                  "mg_fe_err": [0.12, -9999.0], "qflag_chi2": ["good", "bad"]})  # fmt: skip
    out, names = layout(tmp_path, made, "lamost")
    assert names == ["teff", "fe_h", "mg_h"] and out.flags.tolist() == [0, 1]
    assert out.labels[0, 4] == pytest.approx(-0.2) and out.errors[0, 4] == pytest.approx(0.13)
    assert np.isnan(out.labels[1]).all()
    made = Table({"source_id": [11], "teff_xgboost": [5000.0], "logg_xgboost": [3.0], "mh_xgboost": [-0.5]})
    out, names = layout(tmp_path, made, "gaia_xp", label_set("teff", "logg", "m_h"))
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


def test_gaia_eso_sentinels_limits_and_codes(tmp_path):
    bad = np.float32(-9.999995e8)
    made = Table(
        {
            "CNAME": ["10001234-0005432", "10011234-0105432", "10021234-0205432"],
            "RA": [150.0, 150.3, 150.6],
            "DEC": [-0.1, -1.1, -2.1],
            "TEFF": np.array([5772, 4500, bad], np.float32),
            "E_TEFF": np.array([50, 60, bad], np.float32),
            "FEH": np.array([0.0, -0.5, bad], np.float32),
            "E_FEH": np.array([0.05, 0.05, bad], np.float32),
            "MG1": np.array([7.53, 7.23, bad], np.float32),
            "E_MG1": np.array([0.1, 0.1, bad], np.float32),
            "UPPER_MG1": np.array([0, 1, -1], np.int16),
            "TI1": np.array([bad, 4.4, bad], np.float32),
            "E_TI1": np.array([bad, 0.1, bad], np.float32),
            "TI2": np.array([5.0, 9.0, bad], np.float32),
            "E_TI2": np.array([0.2, 0.2, bad], np.float32),
            "TECH": ["NONE", "9100-10-02-00-A|10106-11-02-00-A", "NONE"],
            "PECULI": ["NONE", "NONE", "20020-10-00-00-A"],
        }
    )
    out, names = layout(tmp_path, made, "gaia_eso")
    assert names == ["teff", "fe_h", "mg_h", "ti_h"]
    np.testing.assert_allclose(out.labels[0, [0, 2, 4, 7]], [5772, 0.0, 0.0, 0.1], atol=1e-6)
    np.testing.assert_allclose(out.labels[1, [0, 2, 4, 7]], [4500, -0.5, np.nan, -0.5], atol=1e-6)
    assert np.isnan(out.labels[2]).all() and (out.flags != 0).tolist() == [False, True, True]
    assert out.solar == "grevesse2007"


def test_a_table_that_is_not_that_surveys(tmp_path):
    with pytest.raises(InputError, match=r"format galah.*none of its columns"):
        layout(tmp_path, Table({"a": [1.0]}), "galah")


# --- published tables


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


def test_apogee_and_galah_of_real_releases(data):
    folder = data / "catalogues"
    content = [
        {"file": "apogee_dr12_hipparcos.fits.gz", "format": "apogee"},
        {"file": "apogee_dr17_halo.fits", "format": "apogee"},
        {"file": "galah_dr3_halo.fits", "format": "galah"},
    ]
    old, new, galah = (read_survey(spec, NINE_LABELS) for spec in parse_file(content, folder).tables)
    assert np.isfinite(old.labels[:, 0]).sum() == 771 and old.solar == "asplund2005"
    # Rows without results carry APOGEE's own reasons, those with them seldom do.
    empty = np.isnan(old.labels).all(1)
    assert (old.flags[empty] != 0).mean() > 0.9 > 0.1 > (old.flags[~empty] != 0).mean()
    for catalogue in (new, galah):
        assert (np.isfinite(catalogue.labels).mean(0) > 0.95).all()
        silicon = catalogue.labels[:, 8] - catalogue.labels[:, 2]
        assert 0.1 < np.nanmedian(silicon) < 0.4  # halo stars are rich in alpha elements
