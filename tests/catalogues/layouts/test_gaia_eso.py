"""Gaia-ESO, read by one reader for both uses: columns, sentinels, limits, codes, the solar scale."""

import numpy as np
import pytest
from astropy.table import Table

from jaxspec.catalogues.label_table import join
from jaxspec.catalogues.layouts.gaia_eso import codes, parse_codes, read_gaia_eso
from jaxspec.catalogues.read import read_survey
from jaxspec.catalogues.solar import ASPLUND2021, GREVESSE2007
from jaxspec.catalogues.spec import parse_file
from jaxspec.errors import InputError
from jaxspec.instruments import get_instrument
from jaxspec.labels import NINE_LABELS
from tests.survey import SENTINEL, _catalogue
from tests.tables import layout

LABELS = np.array(
    [[5772.0, 4.44, 0.0, 0.02, 0.0, -0.01, 0.03, 0.0, 0.01],
     [4500.0, 2.0, -0.5, -0.3, -0.2, -0.25, -0.5, -0.3, -0.3],
     [6200.0, 4.1, -1.5, -1.4, -1.1, np.nan, -1.5, -1.2, -1.1]]
)  # fmt: skip
ERRORS = np.full((3, 9), 0.05)
NAMES = ("10001234-0005432", "10011234-0105432", "10021234-0205432")


def table(**change):
    files = [f"gar_{n}_H548.8.fit|gar_{n}_H875.7.fit" for n in NAMES]
    made = _catalogue(NAMES, files, [80.0, 20.0, np.nan], np.array([1.0, -20.0, 100.0]), LABELS, ERRORS,
                      get_instrument("giraffe"), None, None)  # fmt: skip
    for name, values in change.items():
        if values is None:
            made.remove_column(name)
        else:
            made[name] = values
    return made


def read(tmp_path, made, **how):
    made.write(tmp_path / "cat.fits", overwrite=True)
    return read_gaia_eso(tmp_path / "cat.fits", **how)


def test_gaia_eso_columns_become_labels_relative_to_the_sun(tmp_path):
    catalogue = read(tmp_path, table())
    np.testing.assert_allclose(catalogue.labels, LABELS, rtol=2e-7, atol=2e-6)  # float32 columns
    np.testing.assert_allclose(catalogue.errors[0], ERRORS[0], rtol=1e-6)
    assert np.isnan(catalogue.errors[2, 5]) and catalogue.complete.tolist() == [True, True, False]
    assert catalogue.names == NAMES and np.isnan(catalogue.snr[2])
    np.testing.assert_allclose(catalogue.velocity, [1.0, -20.0, 100.0])
    assert catalogue.solar == "grevesse2007" and catalogue.provenance["solar"]["mg_h"] == 7.53
    assert catalogue.trusted.all() and np.isnan(catalogue.vsini).all()


def test_the_solar_scale_shifts_abundances_but_not_feh(tmp_path):
    new = read(tmp_path, table(), solar="asplund2021").labels
    for j, name in enumerate(NINE_LABELS.names):
        shift = GREVESSE2007[name] - ASPLUND2021[name] if name.endswith("_h") and name != "fe_h" else 0.0
        np.testing.assert_allclose(new[0, j] - LABELS[0, j], shift, atol=1e-6 * max(1, abs(LABELS[0, j])))


@pytest.mark.parametrize("sentinel", [SENTINEL, np.float32(-9999.0), np.float32(np.nan), np.float32(np.inf)])
def test_sentinels_are_not_numbers(tmp_path, sentinel):
    made = table()
    made["TEFF"][1] = sentinel
    assert np.isnan(read(tmp_path, made).labels[1, 0])


def test_limits_are_not_measurements_and_ionised_lines_fill_in(tmp_path):
    made = table(UPPER_MG1=np.array([0, 1, 0], np.int16))
    made["TI1"][0] = SENTINEL
    made["TI2"][0], made["E_TI2"][0] = GREVESSE2007["ti_h"] + 0.1, 0.2
    made["TI2"][1] = 9.0  # the neutral stage is there and counts
    labels = read(tmp_path, made)
    assert np.isnan(labels.labels[1, 4]) and labels.labels[0, 4] == pytest.approx(0.0, abs=1e-6)
    assert labels.labels[0, 7] == pytest.approx(0.1, abs=1e-6) and labels.errors[0, 7] == pytest.approx(0.2)
    assert labels.labels[1, 7] == pytest.approx(-0.3, abs=1e-6)


def test_flags_and_trust(tmp_path):
    assert parse_codes("10106-11-02-00-A|13027-13-01-00-C") == (10106, 13027)
    assert parse_codes("NONE") == () and parse_codes("") == ()
    made = table(
        TECH=["NONE", "10106-10-02-00-A", "9100-10-02-00-A"], PECULI=["20020-10-00-00-A", "NONE", "NONE"]
    )
    assert codes(made) == [(20020,), (10106,), (9100,)]
    catalogue = read(tmp_path, made)
    assert catalogue.trusted.tolist() == [False, False, True]
    reasons = [catalogue.flag_meaning.get(int(bits)) for bits in catalogue.flags]
    assert reasons == ["double-lined binary (code 20020)", "broken spectrum (code 10106)", None]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"MG1": None}, "no column for mg_h.*MG1"),
        ({"CNAME": None, "OBJECT": None}, "neither CNAME nor OBJECT"),
        ({"TEFF": ["a", "b", "c"]}, "column TEFF row 0"),
        ({"TEFF": np.array([3.76, 3.6, 3.7])}, r"label teff row 0.*3\.76"),
        ({"MG1": np.array([0.0, 0.1, -0.2])}, "column MG1.*log eps"),
        ({"CNAME": [NAMES[0]] * 3, "FILENAME": ["a", "a", "b"]}, "same star"),
    ],
)
def test_wrong_catalogues_are_refused(tmp_path, change, match):
    with pytest.raises(InputError, match=rf"cat\.fits.*{match}"):
        read(tmp_path, table(**change))


def test_join_by_file_then_by_star(tmp_path):
    catalogue = read(tmp_path, table())
    names = [
        "gar_10011234-0105432_H875.7.fit",
        "unknown.fits",
        NAMES[2],
        "folder/gar_10001234-0005432_H548.8.fit.gz",
    ]
    spectrum, row = join(names, catalogue)
    assert spectrum.tolist() == [0, 2, 3] and row.tolist() == [1, 2, 0]
    assert len(catalogue.rows(row)) == 3 and catalogue.rows(row).names[0] == NAMES[1]
    assert join(["nothing"], catalogue)[0].size == 0


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


def test_both_uses_see_the_same_stars(tmp_path):
    """To train on, and as one table of several: the same labels, errors, flags and facts."""
    made = table(TECH=["NONE", "10302-10-02-00-A", "NONE"])
    trained = read(tmp_path, made)
    calibrated, _ = layout(tmp_path, made, "gaia_eso")
    np.testing.assert_array_equal(calibrated.labels, trained.labels)
    np.testing.assert_array_equal(calibrated.covariance, trained.covariance)
    np.testing.assert_array_equal(calibrated.velocity, trained.velocity)
    assert calibrated.flags.tolist() == trained.flags.tolist()
    assert calibrated.flag_meaning == trained.flag_meaning and calibrated.files == trained.files
    assert trained.files[0] == f"gar_{NAMES[0]}_H548.8.fit|gar_{NAMES[0]}_H875.7.fit"


def test_the_common_scale_of_surveys_shifts_feh_too(tmp_path):
    # Where all abundances move to another Sun, so does iron: A(Fe) = [Fe/H] + 7.45 stays what it is.
    made = table()
    made.write(tmp_path / "s.fits", overwrite=True)
    entry = {"file": "s.fits", "format": "gaia_eso"}
    out = read_survey(parse_file([entry], tmp_path).tables[0], NINE_LABELS, "asplund2021")
    for j, name in enumerate(NINE_LABELS.names):
        shift = GREVESSE2007[name] - ASPLUND2021[name] if name.endswith("_h") else 0.0
        np.testing.assert_allclose(
            out.labels[1, j] - LABELS[1, j], shift, atol=2e-6 * abs(LABELS[1, j]) + 1e-6
        )
    assert out.provenance["solar"] == ASPLUND2021


def test_values_without_an_error_are_no_measurements(tmp_path):
    made = table()
    made["E_NI1"][0], made["E_NI1"][1] = SENTINEL, 0.0  # the release does not round: 0 is no error
    made["E_TI1"][0] = SENTINEL  # so the ionised stage fills in
    made["TI2"][0], made["E_TI2"][0] = GREVESSE2007["ti_h"] + 0.1, 0.2
    out = read(tmp_path, made)
    np.testing.assert_array_equal(np.isnan(out.labels[:, 6]), [True, True, False])
    np.testing.assert_array_equal(out.complete, [False, False, False])
    assert out.labels[0, 7] == pytest.approx(0.1, abs=1e-6) and out.errors[0, 7] == pytest.approx(0.2)
    assert "ni_h: 2 values without an error left out" in out.notes


def test_limits_of_both_columns_count(tmp_path):
    made = table(UPPER_AL1=np.array([0, 2, -1], np.int16), LIM_AL1=np.array([1, 0, -1], np.int16))
    assert np.isnan(read(tmp_path, made).labels[:, 3]).tolist() == [True, True, False]
