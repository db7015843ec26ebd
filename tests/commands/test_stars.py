"""The commands `stars predict` and `stars finetune`, from files to files."""

import numpy as np
import pytest
from astropy.table import Table as AstropyTable

from jaxspec import cli
from jaxspec.errors import InputError
from jaxspec.foundation.model import FoundationModel
from jaxspec.foundation.reading import read_stars
from tests.foundation.small import fresh, universe


@pytest.fixture
def files(tmp_path):
    fresh().save(tmp_path / "model", dtype="float32")
    stars = universe(40, 2).columns(["g", "bp_rp"])
    rows = AstropyTable(stars.values, names=stars.names)
    rows["source_id"] = stars.source + 100
    rows.write(tmp_path / "stars.csv")
    labels = AstropyTable({"source_id": stars.source[::-1] + 100, "mg_h": stars.values[::-1, 0] - 1.0})
    labels["e_mg_h"] = 0.1
    labels.write(tmp_path / "labels.csv")
    return tmp_path


@pytest.mark.slow
def test_a_file_is_answered_and_taught_from(files, capsys):
    model = str(files / "model")
    asked = ["stars", "predict", str(files / "stars.csv"), "--ask", "teff,logg", "--model", model]
    assert cli.main([*asked, "-o", str(files / "out.fits"), "--no-cache"]) == 0
    table = AstropyTable.read(files / "out.fits")
    wanted = FoundationModel.load(model).predict(read_stars(files / "stars.csv", None), ["teff", "logg"])
    np.testing.assert_allclose(table["logg"], wanted.median[:, 1], rtol=1e-6)
    assert table["source_id"][0] == 100 and str(table["teff"].unit) == "K"
    new = files / "new"
    taught = [
        "stars",
        "finetune",
        str(files / "stars.csv"),
        "--labels",
        str(files / "labels.csv"),
        "--n",
        "30",
    ]
    assert cli.main([*taught, "--model", model, "--n-steps", "60", "-o", str(new), "--no-cache"]) == 0
    answer = FoundationModel.load(new).predict(read_stars(files / "stars.csv", None), ["mg_h"])
    labels = universe(40, 2).columns(["g"]).values - 1.0
    assert np.corrcoef(answer.median[:, 0], labels[:, 0])[0, 1] > 0.5
    capsys.readouterr()
    asked[4] = "teff,mg_h"
    assert cli.main([*asked, "-o", str(files / "o.fits"), "--no-cache"]) == 1
    assert "ask: found 'mg_h', which the model never saw" in capsys.readouterr().err


def test_results_need_a_format_and_labels_the_same_stars(files):
    from jaxspec.commands import stars_finetune, stars_predict

    with pytest.raises(InputError, match=r"suffix '\.txt'"):
        stars_predict.run(stars_predict.Settings(str(files / "stars.csv")), files / "o.txt")
    (files / "labels.csv").write_text("source_id,mg_h\n1,0.5\n")
    settings = stars_finetune.Settings(
        str(files / "stars.csv"), str(files / "labels.csv"), model=str(files / "model")
    )
    with pytest.raises(InputError, match=r"labels\.csv: found no source_id of the spectra"):
        stars_finetune.run(settings, files / "new")
