import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from jaxspec.errors import InputError
from jaxspec.io import join, read_ges_catalogue, read_label_table, write_table
from jaxspec.io.catalogue import parse_flags
from jaxspec.io.solar import ASPLUND2021, GREVESSE2007
from jaxspec.labels import NINE_LABELS, label_set
from tests.survey import SENTINEL, _catalogue

LABELS = np.array(
    [[5772.0, 4.44, 0.0, 0.02, 0.0, -0.01, 0.03, 0.0, 0.01],
     [4500.0, 2.0, -0.5, -0.3, -0.2, -0.25, -0.5, -0.3, -0.3],
     [6200.0, 4.1, -1.5, -1.4, -1.1, np.nan, -1.5, -1.2, -1.1]]
)  # fmt: skip
ERRORS = np.full((3, 9), 0.05)
NAMES = ("10001234-0005432", "10011234-0105432", "10021234-0205432")


def table(**change):
    from jaxspec.instruments import get_instrument

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
    return read_ges_catalogue(tmp_path / "cat.fits", **how)


def test_gaia_eso_columns_become_labels_relative_to_the_sun(tmp_path):
    catalogue = read(tmp_path, table())
    np.testing.assert_allclose(catalogue.labels, LABELS, rtol=2e-7, atol=2e-6)  # float32 columns
    np.testing.assert_allclose(catalogue.errors[0], ERRORS[0], rtol=1e-6)
    assert np.isnan(catalogue.errors[2, 5]) and catalogue.complete.tolist() == [True, True, False]
    assert catalogue.names == NAMES and np.isnan(catalogue.snr[2])
    np.testing.assert_allclose(catalogue.velocity, [1.0, -20.0, 100.0])
    assert catalogue.meta["solar_scale"] == "grevesse2007" and catalogue.meta["solar"]["mg_h"] == 7.53
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
    assert parse_flags("10106-11-02-00-A|13027-13-01-00-C") == (10106, 13027)
    assert parse_flags("NONE") == () and parse_flags("") == ()
    catalogue = read(
        tmp_path,
        table(
            TECH=["NONE", "10106-10-02-00-A", "9100-10-02-00-A"], PECULI=["20020-10-00-00-A", "NONE", "NONE"]
        ),
    )
    assert catalogue.flags == ((20020,), (10106,), (9100,))
    assert catalogue.trusted.tolist() == [False, False, True]


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


@pytest.mark.parametrize("suffix", ["csv", "ecsv", "fits"])
def test_label_tables(tmp_path, suffix):
    made = Table(np.where(np.isnan(LABELS), -1.3, LABELS), names=NINE_LABELS.names)
    made["vmic"], made["source"] = [1.0, 1.5, 1.3], list(NAMES)
    if suffix != "csv":
        made["teff"].unit = "K"
        made["logg"].unit = "dex"
        made["vmic"].unit = "m/s"
        made["vmic"] *= 1000
    write = write_table if suffix == "fits" else (lambda path, table: table.write(path))
    write(tmp_path / f"t.{suffix}", made)
    read = read_label_table(tmp_path / f"t.{suffix}")
    np.testing.assert_allclose(read.labels[:2], LABELS[:2])
    np.testing.assert_allclose(read.vmic, [1.0, 1.5, 1.3])
    assert read.names == NAMES and np.isnan(read.snr).all() and np.isnan(read.errors).all()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"mg_h": None}, "also mg_h"),
        ({"teff": [5772.0, 45000.0, 6200.0]}, "column teff row 1.*45000"),
        ({"teff": [5772.0, np.nan, 6200.0]}, "column teff row 1.*no value"),
        ({"teff": ["hot", "cold", "warm"]}, "column teff row 0.*'hot'"),
        ({"vmic": [1.0, -1.0, 1.0]}, "column vmic row 1"),
        ({"source": ["a", "a", "b"]}, "rows 0 and 1"),
    ],
)
def test_wrong_label_tables_are_refused(tmp_path, change, match):
    made = Table(np.where(np.isnan(LABELS), -1.3, LABELS), names=NINE_LABELS.names)
    for name, values in change.items():
        if values is None:
            made.remove_column(name)
        else:
            made[name] = values
    made.write(tmp_path / "t.csv")
    with pytest.raises(InputError, match=rf"t\.csv.*{match}"):
        read_label_table(tmp_path / "t.csv")


def test_unreadable_tables_are_refused(tmp_path):
    (tmp_path / "a.csv").write_text("")
    (tmp_path / "b.fits").write_bytes(b"SIMPLE  = nonsense")
    (tmp_path / "c.csv").write_text("teff,logg\n")
    for name in ("a.csv", "b.fits", "c.csv", "none.csv"):
        with pytest.raises(InputError, match=name.replace(".", r"\.")):
            read_label_table(tmp_path / name)


def test_a_published_catalogue_through_the_generic_reader(data):
    # Bensby et al. (2014): units like [cm/s2] and [Sun], integers for Teff.
    read = read_label_table(data / "catalogues/bensby2014.fits", label_set("teff", "logg", "fe_h"))
    with fits.open(data / "catalogues/bensby2014.fits") as file:
        rows = file[1].data
        for j, column in enumerate(("Teff", "logg", "Fe_H")):
            np.testing.assert_allclose(read.labels[:, j], rows[column], rtol=1e-6)
            np.testing.assert_allclose(read.errors[:, j], rows[f"e_{column}"], rtol=1e-6)
        np.testing.assert_allclose(read.vmic, rows["xi"])
