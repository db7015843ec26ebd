"""Columns that are no errors are refused by name; units of errors are their own or their values'."""

from pathlib import Path

import astropy.units as u
import numpy as np
import pytest
from astropy.table import Table

from jaxspec.catalogues.columns import in_unit
from jaxspec.errors import InputError
from jaxspec.labels import label_set
from tests.tables import read

N = 40
LABELS = label_set("teff", "logg", "fe_h")


def survey(rng, **change) -> Table:
    made = Table(
        {
            "HIP": np.arange(1, N + 1),
            "Teff": rng.uniform(4500, 6500, N),
            "logg": rng.uniform(1.0, 4.6, N),
            "feh": rng.normal(-0.3, 0.3, N),
            "e_Teff": rng.uniform(30, 120, N),
            "e_logg": rng.uniform(0.05, 0.2, N),
            "e_feh": rng.uniform(0.03, 0.1, N),
        }
    )
    for name, column in {"teff": "Teff", "logg": "logg", "fe_h": "feh"}.items():
        for side, sign in (("upper", 1), ("lower", -1)):
            made[f"{name}_{side}"] = made[column] + sign * made[f"e_{column}"] * rng.uniform(0.8, 1.3, N)
    for name, values in change.items():
        made[name] = values
    return made


def entry(**errors):
    good = {"teff": "e_Teff", "logg": "e_logg", "fe_h": "e_feh"}
    return {"columns": {"teff": "Teff", "logg": "logg", "fe_h": "feh"}, "errors": {**good, **errors}}


@pytest.mark.parametrize("label", LABELS.names)
@pytest.mark.parametrize("form", ["both", "up", "down", "renamed", "few"])
def test_percentiles_given_as_errors_are_refused(tmp_path, rng, label, form):
    made = survey(rng)
    upper, lower = f"{label}_upper", f"{label}_lower"
    if form in ("renamed", "few"):
        made.rename_columns([upper, lower], ["A", "B"])
        upper, lower = "A", "B"
    given = {"up": upper, "down": lower}.get(form, [upper, lower])
    made = made[:4] if form == "few" else made
    with pytest.raises(
        InputError, match=rf"t\.fits, errors\.{label}, column.*one-sigma errors.*or one number"
    ):
        read(tmp_path, made, LABELS, **entry(**{label: given}))


def test_true_errors_pass(tmp_path, rng):
    made = survey(rng, up=np.full(N, 0.1), down=np.full(N, -0.08), pct=0.02 * np.linspace(4500, 6500, N))
    out = read(tmp_path, made, LABELS, **entry(fe_h=["up", "down"], teff="pct"))
    np.testing.assert_allclose(out.errors[:, 2], 0.09)
    np.testing.assert_allclose(read(tmp_path, made, LABELS, **entry()).errors[:, 0], made["e_Teff"])


@pytest.mark.parametrize(
    ("errors", "change"),
    [({"teff": "var_Teff"}, {"var_Teff": np.full(N, 900.0)}), ({"logg": "logg"}, {}), ({"fe_h": "Teff"}, {})],
)
def test_variances_and_values_are_refused(tmp_path, rng, errors, change):
    with pytest.raises(InputError, match=f"errors.{next(iter(errors))}"):
        read(tmp_path, survey(rng, **change), LABELS, **entry(**errors))


@pytest.mark.parametrize(
    ("value", "error", "given", "size"),
    [
        ("kK", None, {}, 1e3),
        ("kK", "K", {}, 1.0),
        ("kK", "kK", {}, 1e3),
        ("K", "kK", {}, 1e3),
        (None, "K", {}, 1.0),
        (None, None, {"units": {"teff": "kK"}}, 1e3),
        (None, "K", {"units": {"teff": "kK"}}, 1.0),
        ("K", "K", {"units": {"teff": "kK"}}, 1e3),
    ],
)
def test_the_unit_of_an_error_is_its_own_or_that_of_its_value(tmp_path, rng, value, error, given, size):
    made = survey(rng)
    kilo = value == "kK" or "units" in given
    errors = np.array(made["e_Teff"]) / size
    made["Teff"] = np.array(made["Teff"]) / (1e3 if kilo else 1.0)
    made["e_Teff"] = errors
    made["Teff"].unit, made["e_Teff"].unit = value, error
    out = read(tmp_path, made, LABELS, **entry(), **given)
    np.testing.assert_allclose(out.errors[:, 0], errors * size)
    assert out.labels[0, 0] > 4000


@pytest.mark.parametrize("unit", ["%", "mag", "km/s"])
def test_an_error_in_another_kind_of_unit_is_refused(tmp_path, rng, unit):
    made = survey(rng)
    made["e_Teff"].unit = unit
    with pytest.raises(InputError, match=r"column e_Teff.*expected K"):
        read(tmp_path, made, LABELS, **entry())


def test_gravities_in_other_units():
    made = Table({"logg": [2.4, 0.0]})
    for unit, shift in (
        ("log(m.s**-2)", 2.0),
        ("[m/s2]", 2.0),
        ("dex(cm/s2)", 0.0),
        ("[cm/s2]", 0.0),
        ("dex", 0.0),
    ):
        made["logg"].unit = u.Unit(unit, parse_strict="silent")
        values = in_unit(made, "logg", "dex", Path("t.fits"), label="logg")
        np.testing.assert_allclose(values, np.array([2.4, 0.0]) + shift)
        errors = in_unit(made, "logg", "dex", Path("t.fits"), label="logg", difference=True)
        np.testing.assert_allclose(errors, [2.4, 0.0])
    for unit, label, expected in (("log(K)", "logg", "log of cm/s2"), ("[cm/s2]", "fe_h", "expected dex")):
        made["logg"].unit = u.Unit(unit, parse_strict="silent")
        with pytest.raises(InputError, match=rf"column logg.*{expected}"):
            in_unit(made, "logg", "dex", Path("t.fits"), label=label)
    for unit in ("[Sun]", "log(N/N_H)", "[-]"):
        made["logg"].unit = u.Unit(unit, parse_strict="silent")
        assert in_unit(made, "logg", "dex", Path("t.fits"), label="fe_h")[0] == 2.4
