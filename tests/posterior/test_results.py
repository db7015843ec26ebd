"""Tables and trees hold the numbers of the draws, with units, UCDs and flags."""

import dataclasses

import numpy as np
import pytest
import xarray as xr
from astropy.io import fits
from astropy.table import Table

from jaxspec.errors import InputError
from jaxspec.io import read_table, write_datatree, write_table
from jaxspec.labels import NINE_LABELS
from jaxspec.posterior import flags
from jaxspec.posterior.flags import FLAG_TEXT, Flag
from jaxspec.posterior.results import Posterior


@pytest.fixture
def posterior(rng):
    draws = rng.normal(np.arange(1, 10), 0.1, (4000, 3, 9)).astype(np.float32)
    draws[..., 0] = rng.normal(5500.0, 40.0, (4000, 3))
    return Posterior(
        draws=draws,
        log_prob=rng.normal(size=(4000, 3)).astype(np.float32),
        label_set=NINE_LABELS,
        names=("sun.fits", "b", "c"),
        snr=np.array([100.0, 20.0, 5.0]),
        chi2=np.full(3, np.nan),
        flags=np.array([32, 32 | 2, 32], np.int64),
        stats={"novelty": np.array([0.1, 0.2, 0.3])},
    )


def test_table_columns_and_values(posterior):
    table = posterior.to_table()
    expected = ["source"]
    for name in NINE_LABELS.names:
        expected += [name, f"e_{name}", f"{name}_p16", f"{name}_p84"]
    assert table.colnames == [*expected, "snr", "chi2", "flags", "usable"]
    # 4,000 draws of a Gaussian of 40 K.
    assert abs(table["teff"][0].to_value("K") - 5500.0) < 4.0
    assert abs(table["e_teff"][0].to_value("K") - 40.0) < 2.5
    assert table["teff_p16"][0] < table["teff"][0] < table["teff_p84"][0]
    assert str(table["teff"].unit) == "K" and str(table["fe_h"].unit) == "dex"
    assert table["flags"].dtype == np.int64 and list(table["source"]) == ["sun.fits", "b", "c"]


def test_table_written_as_fits(posterior, tmp_path):
    path = write_table(tmp_path / "labels.fits", posterior.to_table())
    with fits.open(path) as hdus:
        header = hdus[1].header
        columns = {header[f"TTYPE{i}"]: i for i in range(1, header["TFIELDS"] + 1)}
        assert header[f"TUCD{columns['teff']}"] == "phys.temperature.effective;stat.median"
        assert header[f"TUCD{columns['e_logg']}"] == "stat.error;phys.gravity"
        assert header[f"TUNIT{columns['teff']}"] == "K"
        np.testing.assert_allclose(hdus[1].data["teff_p16"], posterior.quantile(0.16)[:, 0], rtol=1e-6)
        assert hdus[1].data["flags"][1] == 34


@pytest.mark.filterwarnings("error")
def test_the_file_explains_itself_and_opens_everywhere(posterior, tmp_path):
    """Every column and every bit has its text in the header; astropy and pandas open it without a warning,
    with units and names as text; single-arm stars are kept."""
    posterior = dataclasses.replace(posterior, flags=np.array([4 | 32, 8, 1]))
    path = write_table(tmp_path / "labels.fits", posterior.to_table())
    header = fits.getheader(path, 1)
    for i in range(1, header["TFIELDS"] + 1):
        assert len(header[f"TCOMM{i}"]) > 10 and header[f"TUCD{i}"], header[f"TTYPE{i}"]
    for flag, text in FLAG_TEXT.items():
        assert flag.name in header[f"FLAG{int(flag)}"] and text in header[f"FLAG{int(flag)}"]
    back = Table.read(path, character_as_bytes=False)
    assert back["teff"].unit == "K" and back["fe_h"].unit == "dex"
    kept = back[back["usable"]].to_pandas()
    assert list(kept["source"]) == ["sun.fits", "c"]
    frame = read_table(path).to_pandas()
    assert list(frame["source"]) == ["sun.fits", "b", "c"] and list(frame["usable"]) == [True, False, True]
    assert posterior.usable.tolist() == [True, False, True]


def test_datatree_follows_the_arviz_schema(posterior, tmp_path):
    path = write_datatree(tmp_path / "posterior.nc", posterior.to_datatree())
    with xr.open_datatree(path, engine="h5netcdf") as tree:
        assert tree["posterior"].dims == {"sample": 4000, "star": 3}
        assert set(tree["posterior"].data_vars) == set(NINE_LABELS.names)
        assert tree["posterior"]["teff"].attrs["units"] == "K"
        assert list(np.atleast_1d(tree["posterior"].attrs["sample_dims"])) == ["sample"]
        assert list(tree["posterior"].attrs["sampled_variables"]) == list(NINE_LABELS.names)
        assert tree["posterior"].attrs["inference_library"] == "jaxspec"
        np.testing.assert_array_equal(tree["posterior"]["logg"].values, posterior.draws[..., 1])
        np.testing.assert_array_equal(tree["sample_stats"]["lp"].values, posterior.log_prob)
        np.testing.assert_array_equal(tree["constant_data"]["flags"].values, posterior.flags)
        assert [str(s) for s in tree["posterior"]["star"].values] == list(posterior.names)


def test_raw_draws_are_written_and_read_again(posterior, tmp_path):
    """A recalibrated posterior, here half as wide as the network's, keeps both."""
    middle = np.median(posterior.draws, axis=0)
    both = dataclasses.replace(
        posterior, draws=middle + 0.5 * (posterior.draws - middle), raw=posterior.draws
    )
    plain, table = posterior.to_table(), both.to_table()
    last = NINE_LABELS.names[-1]
    assert table.colnames[: len(plain.colnames)] == plain.colnames
    assert table.colnames[-2:] == [f"{last}_raw", f"e_{last}_raw"] and len(table.colnames) == 41 + 18
    for name in NINE_LABELS.names:
        np.testing.assert_array_equal(table[f"{name}_raw"], plain[name])
        np.testing.assert_array_equal(table[f"e_{name}_raw"], plain[f"e_{name}"])
        np.testing.assert_allclose(table[f"e_{name}"].value, 0.5 * plain[f"e_{name}"].value, rtol=1e-3)
    tree = both.to_datatree()
    tree.attrs["training_prior"] = "null"
    again = Posterior.load(write_datatree(tmp_path / "posterior.nc", tree))
    np.testing.assert_array_equal(again.raw, both.raw)
    np.testing.assert_array_equal(again.draws, both.draws)
    np.testing.assert_array_equal(both.select([2]).raw, both.raw[:, 2:])


def test_a_table_tells_how_exact_draws_are(posterior):
    stats = {"pareto_k": np.array([0.1, 0.9, np.nan]), "log_evidence": np.array([3e4, np.nan, np.nan])}
    table = dataclasses.replace(posterior, stats=stats).to_table()
    assert table.colnames[-2:] == ["pareto_k", "log_evidence"]
    np.testing.assert_allclose(table["pareto_k"].value, stats["pareto_k"], rtol=1e-6)
    assert "0.7" in table["pareto_k"].info.description


def test_outcome_of_the_check_is_kept_where_it_was_made(posterior):
    checked = posterior.with_fit(
        np.array([1.0, 9.0, np.nan]), np.array([False, True, True]), np.array([True, False, True])
    )
    assert checked.stats["bad_fit"].tolist() == [0.0, 1.0, 0.0]
    assert checked.stats["bad_errors"].tolist() == [1.0, 0.0, 0.0]
    assert np.isnan(checked.chi2[2]) and checked.chi2[1] == 9.0


def test_select(posterior):
    one = posterior.select(np.array([False, True, False]))
    assert one.names == ("b",) and one.draws.shape == (4000, 1, 9) and one.stats["novelty"] == 0.2
    np.testing.assert_array_equal(posterior.select([2, 0]).snr, [5.0, 100.0])


def test_wrong_shapes_are_refused(posterior):
    with pytest.raises(InputError, match="names"):
        dataclasses.replace(posterior, names=("a",))


def test_flags_have_text():
    assert set(FLAG_TEXT) == set(Flag)
    assert flags.describe(0) == [] and flags.names(0) == "OK"
    assert flags.names(10) == "LOW_SNR|BAD_FIT" and len(flags.describe(10)) == 2
    assert [int(f) for f in Flag] == [1 << i for i in range(len(Flag))]
    assert "8 BAD_FIT" in flags.legend()
