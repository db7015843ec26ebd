"""Tables and pictures of lines, and bounds of labels, from a table of stars."""

import numpy as np
import pytest
from astropy.table import QTable, Table

from experiments import bound, identify
from jaxspec.errors import InputError
from jaxspec.labels import NINE_LABELS
from tests.experiments.conftest import configured

SUN = {"source": "the Sun", "teff": 5777.0, "logg": 4.44, **dict.fromkeys(NINE_LABELS.names[2:], 0.0)}


@pytest.fixture
def labels(tmp_path):
    Table([{**SUN, "vmic": 1.0}]).write(tmp_path / "stars.csv")
    return tmp_path / "stars.csv"


def test_lines_of_a_star_in_a_table_and_a_picture(labels, tmp_path):
    """Mg I 5528 is the strongest line of its neighbourhood, wide, clean, and 0.8 deep."""
    cfg = configured(
        "identify", f"labels='{labels}'", f"output='{tmp_path}'", "windows=[[5527.0,5530.0]]", "step=0.03"
    )
    identify.run(cfg, tmp_path)
    table = QTable.read(tmp_path / "the_Sun_lines.ecsv")
    first = table[np.argmax(table["equivalent_width"])]
    assert first["species"] == "Mg I" and abs(first["wavelength"].value - 5528.405) < 0.01
    assert 250 < first["equivalent_width"].to_value("mAngstrom") < 400 and first["share"] > 0.99
    assert first["depth"] == pytest.approx(0.8, abs=0.05)
    assert table.meta["approximation"] == "LTE" and table.meta["teff"] == 5777.0
    assert (tmp_path / "the_Sun_lines.png").stat().st_size > 20_000
    with np.load(tmp_path / "the_Sun_pixels.npz") as pixels:
        at = np.argmin(np.abs(pixels["wavelength"] - 5528.405))
        assert pixels["share"][list(pixels["elements"]).index("Mg"), at] > 0.99


TOY = ["instrument=toy", "forward=tests.experiments.toys.forward"]


def test_bound_of_a_table_of_stars(labels, tmp_path):
    """Twice the S/N halves the errors when nothing else is unknown; fewer labels, smaller errors."""
    tables = [
        bound.run(
            configured("bound", f"labels='{labels}'", f"output='{tmp_path}'", *TOY, "unknown=nothing", more),
            tmp_path,
        )
        for more in ("snr=50", "snr=100", "free=[teff,mg_h]")
    ]
    written = Table.read(tmp_path / "bound.ecsv")
    assert written.colnames == ["source", "snr", "teff", "mg_h"] and str(written["teff"].unit) == "K"
    for name in NINE_LABELS.names:
        assert tables[0][name][0] == pytest.approx(2 * tables[1][name][0], rel=1e-5)
    assert written["teff"][0] < tables[1]["teff"][0]
    assert (tmp_path / "the_Sun_information.png").exists()


def test_wrong_settings_are_named(labels, tmp_path):
    for more, named in (("unknown=some", "unknown"), ("engine=fast", "engine")):
        with pytest.raises(InputError, match=named):
            bound.run(configured("bound", f"labels='{labels}'", f"output='{tmp_path}'", *TOY, more), tmp_path)
