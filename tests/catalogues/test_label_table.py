"""Plain tables of labels: read in their units, refused by row and column."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from jaxspec.catalogues.label_table import join, read_label_table
from jaxspec.errors import InputError
from jaxspec.io import write_table
from jaxspec.labels import NINE_LABELS, label_set

LABELS = np.array(
    [[5772.0, 4.44, 0.0, 0.02, 0.0, -0.01, 0.03, 0.0, 0.01],
     [4500.0, 2.0, -0.5, -0.3, -0.2, -0.25, -0.5, -0.3, -0.3],
     [6200.0, 4.1, -1.5, -1.4, -1.1, np.nan, -1.5, -1.2, -1.1]]
)  # fmt: skip
NAMES = ("10001234-0005432", "10011234-0105432", "10021234-0205432")


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


def test_stars_without_a_name_are_not_one_star(tmp_path):
    rows = "\n".join(f"{name},5772,4.44,0,0,0,0,0,0,0" for name in ("Unknown", "Unknown", "-", "-", "HD 1"))
    header = "source,teff,logg,fe_h,al_h,mg_h,ca_h,ni_h,ti_h,si_h\n"
    (tmp_path / "s.csv").write_text(header + rows + "\n", encoding="utf-8-sig")
    out = read_label_table(tmp_path / "s.csv")
    assert len(out) == 5 and out.identifiers.named.tolist() == [False] * 4 + [True]
    assert [x.tolist() for x in join(["Unknown.fits", "HD 1.fits"], out)] == [[1], [4]]
