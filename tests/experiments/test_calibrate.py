"""The contract of the cross-calibration on files: what is written, that it is right, and what is said of
inputs that cannot be calibrated."""

import json

import numpy as np
import pytest
from astropy.table import Table, vstack
from scipy import stats

from experiments import calibrate
from experiments.common import CONF
from jaxspec.commands import calibrate as commands
from jaxspec.errors import InputError
from jaxspec.io import read_table
from jaxspec.surveys.assemble import StarFlag
from tests.experiments.conftest import configured

# "dex" is the field's unit of abundances, though not one of the FITS standard.

LABELS = ("teff", "logg", "fe_h")
ERRORS = np.array([50.0, 0.08, 0.04])
SCATTER = np.array([30.0, 0.06, 0.03])  # a survey's own, beyond its errors
OFFSET = {"a": np.array([60.0, 0.10, -0.05]), "b": np.array([-80.0, 0.05, 0.08])}
N = 260
HELD = np.arange(100, 130)  # seen by a; would be seen by b as well


def stars(rng):
    return np.column_stack([rng.normal(5500, 350, N), rng.normal(4.2, 0.3, N), rng.normal(-0.2, 0.25, N)])


def table(rng, truth, rows, offset, error, scatter=SCATTER) -> Table:
    values = truth[rows] + offset + np.hypot(error, scatter) * rng.normal(size=(len(rows), 3))
    made = Table({"HIP": [f"HIP {row + 1}" for row in rows]})
    for j, name in enumerate(LABELS):
        made[name], made[f"e_{name}"] = values[:, j], np.full(len(rows), error[j])
    return made


def entry(name, **more):
    return {
        "name": name,
        "file": f"{name}.csv",
        "columns": {label: label for label in LABELS},
        "errors": {label: f"e_{label}" for label in LABELS},
        "identifiers": {"hip": "HIP"},
        **more,
    }


def write(folder, tables: dict[str, Table], **more):
    """Tables and the file that lists them."""
    folder.mkdir(exist_ok=True)
    for name, made in tables.items():
        made.write(folder / f"{name}.csv", overwrite=True)
    entries = [
        entry(name, **({"anchor": True} if name == "gold" else {}), **more.get(name, {})) for name in tables
    ]
    (folder / "surveys.yaml").write_text(json.dumps({"tables": entries}))  # JSON is YAML
    return folder / "surveys.yaml"


@pytest.fixture(scope="module")
def sky(tmp_path_factory):
    """Two surveys with planted offsets, which share 100 stars but for those held out, and 40 anchors."""
    rng = np.random.default_rng(12)
    truth = stars(rng)
    a = table(rng, truth, np.arange(0, 180), OFFSET["a"], ERRORS)
    all_b = table(rng, truth, np.arange(60, N), OFFSET["b"], 0.7 * ERRORS)
    b = all_b[~np.isin(np.arange(60, N), HELD)]
    gold = table(rng, truth, np.r_[0:20, 200:220], np.zeros(3), 0.3 * ERRORS, 0.0)
    folder = tmp_path_factory.mktemp("tables")
    return folder, {"a": a, "b": b, "gold": gold}, truth, all_b


@pytest.fixture(scope="module")
def results(sky, tmp_path_factory):
    folder, tables, _, _ = sky
    out = tmp_path_factory.mktemp("calibrated")
    calibrate.run(settings(write(folder, tables), out, "predict=b"), out)
    return out


def settings(path, folder, *more):
    quick = ("+model.components=1", "draws=300", "method=laplace")
    return configured("calibrate", f"surveys='{path}'", f"output='{folder}'", *quick, *more)


def star_number(made):
    return made["hip"].astype(int) - 1


def test_offsets_are_recovered_in_the_promised_table(results):
    offsets = Table.read(results / "offsets.ecsv")
    assert offsets.colnames[:5] == ["survey", "label", "term", "mean", "sd"]
    assert set(offsets["survey"]) == {"a", "b"} and set(offsets["label"]) == {*LABELS, "all"}
    for name, planted in OFFSET.items():
        for j, label in enumerate(LABELS):
            which = (offsets["survey"] == name) & (offsets["label"] == label)
            zero = offsets[which & (offsets["term"] == "zero_point")]
            assert len(zero) == 1
            assert abs(zero["mean"][0] - planted[j]) < 4 * zero["sd"][0] < 4 * 0.5 * ERRORS[j]
            trends = offsets[which & np.isin(offsets["term"], LABELS)]
            assert len(trends) == 3 and (np.abs(trends["mean"]) < 4 * trends["sd"]).all()


def test_calibrated_labels_are_the_true_ones_within_their_errors(results, sky):
    made = read_table(results / "calibrated.fits")
    expected = ["identifier"] + [x for label in LABELS for x in (label, f"e_{label}")] + ["flags"]
    assert made.colnames[: len(expected)] == expected and made["teff"].unit == "K"
    assert len(made) == N and made["identifier"][0] == "HIP 1"
    truth = sky[2][star_number(made)]
    for j, label in enumerate(LABELS):
        error = np.asarray(made[f"e_{label}"].value)
        z = (np.asarray(made[label].value) - truth[:, j]) / error
        assert abs(z.mean()) < 0.5 and 0.8 < z.std() < 1.25
        assert np.median(error) < 1.25 * np.hypot(ERRORS[j], SCATTER[j])  # of most stars, seen once
    one = (made["flags"] & StarFlag.ONE_SURVEY) > 0
    assert one[np.isin(star_number(made), np.arange(20, 60))].all() and not one[star_number(made) < 20].any()


def test_what_a_survey_would_report_is_predicted_with_its_scatter(results, sky):
    made = read_table(results / "predicted.fits")
    assert "e_fe_h" in made.colnames and len(made) == N
    row = {int(n): i for i, n in enumerate(star_number(made))}
    all_b, squares = sky[3], []
    for j, label in enumerate(LABELS):
        rows = [row[n] for n in HELD]
        predicted = np.asarray(made[label].value[rows], float)
        error = np.asarray(made[f"e_{label}"].value[rows], float)
        reported = np.asarray(all_b[label][HELD - 60])
        difference = reported - predicted
        assert difference.std() < 1.4 * np.sqrt(1.49 * ERRORS[j] ** 2 + 2 * SCATTER[j] ** 2)
        squares.append((difference / error) ** 2)
    # 99.9 % of the chi-squares of 30 stars in each label, and of all three labels together.
    for found in (*squares, np.concatenate(squares)):
        low, high = stats.chi2.ppf([0.0005, 0.9995], found.size) / found.size
        assert max(low, 0.5) < found.mean() < high


def test_everything_else_is_there(results):
    metrics = json.loads((results / "metrics.json").read_text())
    assert metrics["stars"] == N and metrics["shared"]["a, b"] == 90
    assert set(metrics["held_out"]["labels"]) == set(LABELS)
    for name in ("offsets", "scatter", "predictive", "held_out", "residuals_a_b"):
        assert (results / f"{name}.png").stat().st_size > 20_000
    checksums = json.loads((results / "provenance.json").read_text())["checksums"]
    assert {name.rsplit("/", 1)[-1] for name in checksums} == {"surveys.yaml", "a.csv", "b.csv", "gold.csv"}
    assert len(Table.read(results / "matches.ecsv")) == 0


# --- what cannot be calibrated


def refused(tmp_path, tables, match, *more, **entries):
    with pytest.raises(InputError, match=match):
        calibrate.run(
            settings(write(tmp_path / "in", tables, **entries), tmp_path / "out", *more), tmp_path / "out"
        )


def test_one_survey_alone(sky, tmp_path):
    refused(tmp_path, {"a": sky[1]["a"]}, "survey")


def test_no_common_star(sky, tmp_path):
    apart = sky[1]["b"][-75:]  # stars 185 and up: none of them is in a
    refused(tmp_path, {"a": sky[1]["a"], "b": apart}, "common|more than once|overlap")


def test_a_label_without_any_value(sky, tmp_path):
    tables = {name: sky[1][name].copy() for name in ("a", "b")}
    for made in tables.values():
        made["fe_h"] = np.nan
    refused(tmp_path, tables, "label fe_h.*no value")


def test_wrong_units(sky, tmp_path):
    made = sky[1]["a"].copy()
    made["teff"] = made["teff"] / 1000
    refused(tmp_path, {"a": made, "b": sky[1]["b"]}, r"a\.csv label teff row 0")


def test_unknown_survey_to_predict(sky, tmp_path):
    refused(tmp_path, {"a": sky[1]["a"], "b": sky[1]["b"]}, "one of a, b", "predict=c")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("tables: [", "YAML"),
        ("a: 1\na: 2\n", "YAML"),
        ("just text", "unknown entry"),
        ("tables: []", "list of tables"),
    ],
)
def test_files_that_are_no_list_of_tables(tmp_path, text, match):
    path = tmp_path / "surveys.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=match):
        commands.load_surveys(path)
    with pytest.raises(InputError, match="no such file"):
        commands.load_surveys(tmp_path / "none.yaml")


def test_duplicated_stars_are_counted_and_used_once(sky, tmp_path, caplog):
    """An exact copy of a table's rows adds nothing; other repeats are repeated measurements."""
    tables = sky[1]
    twice = vstack([tables["a"], tables["a"][:10]])
    path = write(tmp_path / "in", {"a": twice, "b": tables["b"]})
    with caplog.at_level("INFO"):
        loaded = commands.read_tables(commands.load_surveys(path))
    assert "10 exact copies" in caplog.text and len(loaded.sky.surveys[0]) == len(tables["a"])


@pytest.mark.slow
def test_without_an_anchor_the_convention_is_said(sky, tmp_path, caplog):
    path = write(tmp_path / "in", {name: sky[1][name] for name in ("a", "b")})
    out = tmp_path / "out"
    with caplog.at_level("INFO"):
        calibrate.run(settings(path, out, "plots=false"), out)
    assert "anchor" in caplog.text
    offsets = Table.read(out / "offsets.ecsv")
    zero = offsets[(offsets["term"] == "zero_point") & (offsets["label"] == "teff")]
    np.testing.assert_allclose(np.sum(zero["mean"]), 0.0, atol=1.0)  # the mean offset is zero
    assert abs(np.ptp(zero["mean"]) - 140.0) < 40.0


def test_published_files_parse(data):
    folder = CONF.parent / "experiments" / "surveys"
    for path in sorted(folder.glob("*.yaml")):
        loaded = commands.read_tables(commands.load_surveys(path))
        assert len(loaded.sky.surveys) == len(loaded.files)


@pytest.mark.slow
def test_simulated_skies_are_compared_with_their_truth(tmp_path, capsys):
    more = ("simulated.n_stars=300", "simulated.n_surveys=2", "simulated.overlap=0.4", "plots=false")
    calibrate.run(settings("simulated", tmp_path, "simulated.anchors=0.1", *more), tmp_path)
    truth = json.loads((tmp_path / "metrics.json").read_text())["truth"]
    z = np.array(list(truth["offset_z"].values()))
    assert z.shape == (2, 9) and np.abs(z).max() < 4.0 and np.sqrt(np.mean(z**2)) < 1.7
    assert truth["offset_coverage_90"] == np.mean(np.abs(z) < 1.645)
    assert 0.8 < truth["label_coverage_90"] < 0.97 and 250 < truth["stars"] < 300
    assert "within 90 % intervals" in capsys.readouterr().out
