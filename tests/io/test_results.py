import astropy.units as u
import numpy as np
import pytest
import xarray as xr
from astropy.io import fits
from astropy.table import MaskedColumn, QTable, Table

from jaxspec.errors import InputError
from jaxspec.io import read_table, write_datatree, write_table
from jaxspec.runs import atomically


def table():
    made = QTable(
        {
            "source": ["a.fits", "b.fits"],
            "teff": [5772.0, 4500.0] * u.K,
            "fe_h": [0.0, -0.5] * u.dex,
            "flags": np.array([0, 5]),
        }
    )
    made[
        "teff"
    ].info.description = (
        "effective temperature, median of the posterior; a description far too long for one card of a header"
    )
    made["teff"].info.meta = {"ucd": "phys.temperature.effective"}
    made["fe_h"].info.description, made["fe_h"].info.meta = "[Fe/H]", {"ucd": "phys.abund.Fe"}
    made["flags"].info.description = "bits; 0 is safe"
    made.meta["CHECKPT"] = "default"
    return made


def test_units_ucds_and_descriptions_reach_the_header(tmp_path):
    path = write_table(
        tmp_path / "deep" / "labels.fits", table(), meta={"version": "1.2", "a long keyword": 3}
    )
    with fits.open(path, checksum=True) as file:
        header = file[1].header
        number = {file[1].header[f"TTYPE{i}"]: i for i in range(1, 5)}
        assert header[f"TUNIT{number['teff']}"] == "K" and f"TUNIT{number['fe_h']}" not in header
        assert header[f"TCOMM{number['fe_h']}"] == "[Fe/H] [dex]"
        assert header[f"TUCD{number['teff']}"] == "phys.temperature.effective"
        assert header.comments[f"TTYPE{number['teff']}"].startswith("effective temperature, median")
        assert header.comments[f"TTYPE{number['flags']}"] == "bits; 0 is safe"
        assert header["VERSION"] == "1.2" and header["CHECKPT"] == "default" and header["A LONG KEYWORD"] == 3
        assert file[1].verify_checksum() == file[1].verify_datasum() == 1
    back = read_table(path)
    assert back["teff"].unit == u.K and back["teff"][1] == 4500 * u.K
    assert back["fe_h"].unit == u.dex and back["fe_h"][1].value == -0.5
    assert (
        list(back["source"]) == ["a.fits", "b.fits"] and back["flags"].info.description == "bits; 0 is safe"
    )
    assert back["teff"].info.meta == {"ucd": "phys.temperature.effective"}
    assert back["teff"].info.description == table()["teff"].info.description  # whole, not cut to a card
    assert back["fe_h"].info.description == "[Fe/H]"
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(InputError, match=r"labels\.fits"):
        read_table(path)


@pytest.mark.parametrize("kind", [Table, QTable])
@pytest.mark.filterwarnings("error")
def test_astropy_and_pandas_open_it_without_a_warning_and_with_its_units(tmp_path, kind):
    made = table()
    made["logg"] = np.array([4.4, 2.0], "f4") * u.dex
    made["e_logg"] = MaskedColumn([0.1, 0.2], mask=[False, True], unit="dex")
    made["g"] = [4.4, 2.0] * u.dex(u.cm / u.s**2)
    made["velocity"] = [1.0, -2.0] * u.km / u.s
    path = write_table(tmp_path / "labels.fits", made)
    back = kind.read(path)
    for name in ("teff", "fe_h", "logg", "e_logg", "g", "velocity"):
        assert back[name].unit == made[name].unit, name
    assert back["teff"].info.meta == {"ucd": "phys.temperature.effective"}
    assert back["logg"].dtype.newbyteorder("=") == np.float32 and np.isnan(
        np.ma.filled(back["e_logg"].value, np.nan)[1]
    )
    frame = Table.read(path).to_pandas()
    assert list(frame["flags"]) == [0, 5] and frame["fe_h"][1] == -0.5
    assert read_table(path)["logg"].unit == u.dex


def test_a_table_of_an_older_version_keeps_its_dex(tmp_path):
    hdu = fits.BinTableHDU.from_columns([fits.Column("fe_h", "D", array=np.zeros(2))], name="LABELS")
    hdu.header["TUNIT1"] = "dex"
    hdu.writeto(tmp_path / "old.fits")
    assert read_table(tmp_path / "old.fits")["fe_h"].unit == u.dex


def test_python_objects_are_refused(tmp_path):
    made = table()
    made["bad"] = np.array([{}, []], dtype=object)
    with pytest.raises(InputError, match="column bad"):
        write_table(tmp_path / "a.fits", made)
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "result.txt"
    path.write_text("old")

    def fail(partial):
        partial.write_text("half")
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        atomically(path, fail)
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["result.txt"]
    atomically(path, lambda partial: partial.write_text("new"))
    assert path.read_text() == "new" and path.stat().st_mode & 0o044


def test_datatree_round_trip(tmp_path, rng):
    draws = rng.normal(size=(500, 3, 9)).astype(np.float32)
    posterior = xr.Dataset(
        {"labels": (("sample", "star", "label"), draws)},
        coords={"star": ["a", "b", "c"]},
        attrs={"sample_dims": "sample"},
    )
    tree = xr.DataTree.from_dict(
        {"posterior": posterior, "observed_data": xr.Dataset({"snr": ("star", [1.0, 2.0, 3.0])})}
    )
    path = write_datatree(tmp_path / "posterior.nc", tree)
    with xr.open_datatree(path, engine="h5netcdf") as back:
        np.testing.assert_array_equal(back["posterior/labels"].values, draws)
        assert back["posterior"].attrs["sample_dims"] == "sample" and list(
            back["posterior"]["star"].values
        ) == ["a", "b", "c"]
    assert [p.name for p in tmp_path.iterdir()] == ["posterior.nc"]


NAMES = ["étoile.txt", "%C3%A9toile.txt", "星.fits", "plain name.fits", "old\udce9.txt", "tab\t.txt"]


def test_names_of_any_letters_are_written_and_come_back(tmp_path, caplog):
    made = QTable({"source": np.array(NAMES), "teff": np.arange(6.0) * u.K})
    path = write_table(tmp_path / "labels.fits", made)
    assert "column source" in caplog.text
    assert list(read_table(path)["source"]) == NAMES
    raw = [str(value) for value in fits.getdata(path, 1)["source"]]
    assert len(set(raw)) == 6 and all(value.isascii() for value in raw)
    assert raw[0] == "%C3%A9toile.txt" and raw[3] == "plain name.fits"
    assert "PERCENT" not in fits.getheader(write_table(tmp_path / "b.fits", table()), 1)


def test_posteriors_hold_names_of_any_letters(tmp_path):
    names = np.array(NAMES, object)
    tree = xr.DataTree.from_dict({"posterior": xr.Dataset({"x": ("star", np.arange(6.0))}, {"star": names})})
    path = write_datatree(tmp_path / "p.nc", tree)
    with xr.open_datatree(path, engine="h5netcdf") as back:
        found = [str(name) for name in back["posterior"]["star"].values]
    # One name that is no UTF-8 has the whole column encoded, so that no two names meet.
    assert len(set(found)) == 6 and found[4] == "old%E9.txt" and found[0] == "%C3%A9toile.txt"
    np.testing.assert_array_equal(tree["posterior"]["x"], np.arange(6.0))
