"""Settings of stored weights that this version does not understand are named, with the file and its writer.

Nothing is compiled here: round trips of whole posteriors are in test_amortised.py.
"""

import copy
import dataclasses
import json
from importlib import resources

import pytest

import jaxspec
from jaxspec import artefacts
from jaxspec.amortised.storage import CALIBRATED, load_posterior, read_settings
from jaxspec.errors import InputError
from jaxspec.settings import tupled


@pytest.fixture(scope="module")
def shipped():
    folder = resources.files("jaxspec.amortised") / "weights" / "giraffe"
    return json.loads((folder / "config.json").read_text())


def stored(config, folder):
    """The configuration with the arrays of nothing: its settings are judged before the weights are used."""
    artefacts.save(folder, "posterior", {}, config["settings"], config["domain"], {})
    written = json.loads((folder / "config.json").read_text())
    entries = {name: value for name, value in config.items() if name != "arrays"}
    (folder / "config.json").write_text(json.dumps({**written, **entries}))
    return folder


def test_the_shipped_settings_are_read_as_they_stand(shipped):
    settings = read_settings(shipped["settings"])
    as_stored = {name: shipped["settings"][name] for name in ("network", "prior", "instrument")}
    for name, values in as_stored.items():
        read = json.loads(json.dumps(dataclasses.asdict(getattr(settings, name)), default=list))
        for key in values:
            assert tupled(read[key]) == tupled(values[key]), key
    for name in CALIBRATED:
        assert (settings.calibrated[name] is None) == (shipped["settings"].get(name) is None)


PLACES = {
    "network": ("network",),
    "network.encoder": ("network", "encoder"),
    "network.flow": ("network", "flow"),
    "network.linear_fit": ("network", "linear_fit"),
    "network.linear_fit.nuisances": ("network", "linear_fit", "nuisances"),
    "prior": ("prior",),
    "instrument": ("instrument",),
    "instrument.arms[0]": ("instrument", "arms", 0),
    "reference": ("reference",),
    "limits": ("limits",),
    "recalibration": ("recalibration",),
    "label": ("label_set", 0),
    "": (),
}


@pytest.mark.parametrize("place", PLACES)
def test_an_unknown_field_is_named_with_its_file_and_the_version_that_wrote_it(shipped, place, tmp_path):
    config = copy.deepcopy(shipped)
    config["versions"]["jaxspec"] = "7.8.9"
    inner = config["settings"]
    for key in PLACES[place]:
        inner = inner[key]
    if inner is None:
        pytest.skip(f"the shipped weights have no {place}")
    inner["brand_new_option"] = 3
    with pytest.raises(InputError) as caught:
        load_posterior(stored(config, tmp_path / "p"))
    error = caught.value
    assert error.where == f"{tmp_path}/p/config.json, {place + '.' if place else ''}brand_new_option"
    assert f"written by jaxspec 7.8.9, this is jaxspec {jaxspec.__version__}" in error.found
    assert "install the version that wrote it" in error.fix and "experiments.train" in error.fix


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda c: c["settings"].pop("prior"), "prior: found no such entry"),
        (lambda c: c["settings"].pop("instrument"), "instrument: found no such entry"),
        (lambda c: c["settings"]["instrument"].pop("arms"), r"instrument\.arms: found nothing"),
        (lambda c: c["settings"]["instrument"]["arms"][0].pop("step"), r"instrument\.arms\[0\]\.step"),
        (lambda c: c["settings"].update(network=3), "network"),
        (lambda c: c["settings"]["network"].update(encoder=3), r"network\.encoder: found 3"),
        (lambda c: c["settings"]["network"]["flow"].update(layers="many"), r"network\.flow"),
        (lambda c: c.update(brand_new=1), "brand_new: found no such setting"),
        (lambda c: c.pop("provenance"), "provenance: found no such entry"),
        (lambda c: c.update(settings=None), "settings"),
    ],
)
def test_missing_and_mistyped_entries(shipped, change, match, tmp_path):
    config = copy.deepcopy(shipped)
    change(config)
    folder = stored({**shipped, "settings": {}}, tmp_path / "p")
    arrays = json.loads((folder / "config.json").read_text())["arrays"]
    (folder / "config.json").write_text(json.dumps({**config, "arrays": arrays}))
    with pytest.raises(InputError, match=rf"config\.json.*{match}.*written by jaxspec"):
        load_posterior(folder)
