"""The posterior of an inference is a table of a survey: the same stars, likelihoods instead of labels."""

import dataclasses

import numpy as np
import pytest
import xarray as xr
from astropy.table import Table

from jaxspec.catalogues import label_names, parse_file, read_survey
from jaxspec.commands import calibrate
from jaxspec.errors import InputError
from jaxspec.io import write_datatree
from jaxspec.labels import NINE_LABELS, label_set
from jaxspec.posterior.flags import Flag
from jaxspec.posterior.results import PRIOR, Posterior
from jaxspec.simulation.prior import StellarPrior

N = 8
CENTRE = np.array([5600.0, 4.3, -0.3] + [-0.25] * 6)
WIDTH = np.array([40.0, 0.08, 0.03] + [0.04] * 6)


@pytest.fixture
def posterior(rng):
    """Eight spectra, S/N 100: of the first two the labels were refined, the last has no data."""
    means = CENTRE + rng.normal(size=(N, 9)) * np.array([200.0, 0.2, 0.1] + [0.1] * 6)
    correlation = 0.4 + 0.6 * np.eye(9)
    draws = means + rng.multivariate_normal(np.zeros(9), np.outer(WIDTH, WIDTH) * correlation, (2000, N))
    flags = np.full(N, int(Flag.NOT_CHECKED))
    flags[3], flags[-1] = int(Flag.BAD_FIT), int(Flag.NO_DATA | Flag.NOT_CHECKED)
    names = tuple(f"run/HIP_{i + 1}.fits" for i in range(N))
    stats = {"refined": (np.arange(N) < 2).astype(float), "novelty": np.zeros(N)}
    return Posterior(
        *(draws, np.zeros((2000, N)), NINE_LABELS, names, np.full(N, 100.0), np.full(N, np.nan), flags),
        stats=stats,
        prior=StellarPrior(),
    )


def write(folder, posterior, **entry):
    write_datatree(folder / "posterior.nc", posterior.to_datatree())
    return parse_file([{"name": "flow", "file": "posterior.nc", **entry}], folder)


def test_what_was_written_is_read(tmp_path, posterior):
    write(tmp_path, posterior)
    again = Posterior.load(tmp_path / "posterior.nc")
    assert again.prior == posterior.prior and again.names == posterior.names
    assert again.label_set == NINE_LABELS
    np.testing.assert_array_equal(again.draws, posterior.draws)
    np.testing.assert_array_equal(again.flags, posterior.flags)
    np.testing.assert_array_equal(again.stats["refined"], posterior.stats["refined"])


def test_likelihoods_keep_their_covariance(tmp_path, posterior):
    file = write(tmp_path, posterior)
    assert label_names(file.tables) == list(NINE_LABELS.names)
    out = read_survey(file.tables[0], label_set("fe_h", "teff"))
    mean = posterior.draws.mean(axis=0)
    np.testing.assert_allclose(out.labels[:2], mean[:2][:, [2, 0]], rtol=1e-6)  # refined
    shift = np.abs(out.labels[2:7] - mean[2:7][:, [2, 0]])
    assert np.all((shift < WIDTH[[2, 0]]) & (shift > 1e-3 * WIDTH[[2, 0]]))
    correlation = out.covariance[:7, 0, 1] / out.errors[:7, 0] / out.errors[:7, 1]
    assert np.all(np.abs(correlation - 0.4) < 0.15)
    assert np.isnan(out.labels[7]).all() and (out.covariance[7] == 0).all()  # no data
    assert out.flags.tolist() == [0, 0, 0, 1, 0, 0, 0, 1]
    assert out.identifiers.keys["hip"].tolist() == [str(i + 1) for i in range(N)]
    assert out.solar == "grevesse2007" and out.provenance["format"] == "posterior"
    notes = " ".join(out.notes)
    assert "2 spectra refined" in notes and "divided out of 6" in notes and "1 spectra without" in notes


def test_abundances_come_to_the_common_solar_scale(tmp_path, posterior):
    table = write(tmp_path, posterior).tables[0]
    labels = label_set("fe_h", "mg_h")
    own, other = read_survey(table, labels), read_survey(table, labels, "asplund2009")
    shift = (other.labels - own.labels)[:7]
    np.testing.assert_allclose(shift, np.tile([7.45 - 7.50, 7.53 - 7.60], (7, 1)), atol=1e-9)


def test_a_table_of_stars_says_which_is_which(tmp_path, posterior):
    stars = Table({"source": [f"HIP_{i}.fits" for i in (3, 1, 2)], "id": [300, 100, 200]})
    stars.write(tmp_path / "stars.csv")
    file = write(
        tmp_path, posterior, stars="stars.csv", identifiers={"gaia": "id"}, select={"snr": [50, None]}
    )
    out = read_survey(file.tables[0], NINE_LABELS)
    assert out.identifiers.keys["gaia"].tolist() == ["100", "200", "300"] + [""] * 5
    assert any("5 spectra that stars.csv does not have" in note for note in out.notes)


def test_it_is_calibrated_like_any_table(tmp_path, posterior, rng):
    """Beside a catalogue of the same stars, in one surveys file."""
    table = Table({"HIP": np.arange(1, N + 1), "teff": CENTRE[0] + rng.normal(size=N), "fe_h": np.zeros(N)})
    table.write(tmp_path / "other.csv")
    write(tmp_path, posterior)
    (tmp_path / "surveys.yaml").write_text(
        "tables:\n"
        "  - {name: flow, file: posterior.nc}\n"
        "  - {name: other, file: other.csv, identifiers: {hip: HIP}, columns: {teff: teff, fe_h: fe_h},\n"
        "     errors: {teff: 50, fe_h: 0.1}}\n"
    )
    loaded = calibrate.read_tables(calibrate.load_surveys(tmp_path / "surveys.yaml"))
    assert calibrate.shared(loaded.sky) == {"flow, other": N - 1}
    assert loaded.sky.label_set == NINE_LABELS and len(loaded.sky.surveys[0]) == N - 1
    assert np.all(loaded.sky.surveys[0].covariance[:, 0, 2] > 0)  # Teff with [Fe/H]


@pytest.mark.parametrize(
    ("entry", "match"),
    [
        ({"columns": {"teff": "teff"}, "errors": {"teff": 50}}, "columns.*knows its labels"),
        ({"stars": "none.csv", "identifiers": {"gaia": "id"}}, "none.csv.*no such file"),
        ({"file": "none.nc"}, "none.nc.*no such file"),
        ({"file": "text.nc"}, r"text\.nc.*no posterior.*experiments\.infer"),
        ({"file": "text.csv", "format": "posterior"}, r"text\.csv.*no posterior"),
        ({"file": "text.csv", "stars": "s.csv", "columns": {"teff": "a"}}, "stars.*given for a table"),
    ],
)
def test_what_cannot_be_used_is_refused(tmp_path, posterior, entry, match):
    for name in ("text.nc", "text.csv"):
        (tmp_path / name).write_text("a,b\n1,2\n")
    table = write(tmp_path, posterior, **entry).tables[0]
    with pytest.raises(InputError, match=match):
        read_survey(table, NINE_LABELS)


def test_stars_need_identifiers(tmp_path, posterior):
    Table({"source": ["x"], "id": [1]}).write(tmp_path / "stars.csv")
    with pytest.raises(InputError, match="no identifiers in the entry"):
        read_survey(write(tmp_path, posterior, stars="stars.csv").tables[0], NINE_LABELS)
    table = write(tmp_path, posterior, stars="stars.csv", identifiers={"gaia": "id"}).tables[0]
    with pytest.raises(InputError, match="none of the 8 spectra"):
        read_survey(table, NINE_LABELS)


def test_an_unknown_prior_is_refused(tmp_path, posterior):
    table = write(tmp_path, dataclasses.replace(posterior, prior=None)).tables[0]
    with pytest.raises(InputError, match="6 spectra inferred by a network that was trained on a survey"):
        read_survey(table, NINE_LABELS)
    refined = dataclasses.replace(posterior.select([0, 1]), prior=None)
    assert np.isfinite(read_survey(write(tmp_path, refined).tables[0], NINE_LABELS).labels).all()
    tree = posterior.to_datatree()
    del tree.attrs[PRIOR]
    assert isinstance(tree, xr.DataTree)
    write_datatree(tmp_path / "posterior.nc", tree)
    with pytest.raises(InputError, match=f"{PRIOR}.*infer the spectra again"):
        read_survey(table, NINE_LABELS)
