import ast
import dataclasses
import itertools
import json
import pickle
import re
from pathlib import Path

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.test_util import check_grads

from jaxspec.errors import InputError
from jaxspec.labels import LABELS, NINE_LABELS, Label, LabelSet, ScaledSigmoid, label_set

ROOT = Path(__file__).resolve().parents[1]
OTHER = label_set("teff", "m_h", "ebv", "log_luminosity")
SETS = {"nine": NINE_LABELS, "foundation": OTHER}


@pytest.fixture(params=SETS.values(), ids=SETS.keys())
def labels(request) -> LabelSet:
    return request.param


def test_nine_labels_are_the_documented_ones():
    assert NINE_LABELS.names == ("teff", "logg", "fe_h", "al_h", "mg_h", "ca_h", "ni_h", "ti_h", "si_h")
    assert [label.unit for label in NINE_LABELS] == ["K"] + 8 * ["dex"]
    assert NINE_LABELS["teff"].solar == 5772.0
    # Hard bounds contain the range over which spectra are simulated.
    low = np.array([4000, 0.5, -2.5] + 6 * [-3.0])
    high = np.array([7000, 5.0, 0.5] + 6 * [1.3])
    assert (NINE_LABELS.low < low).all() and (NINE_LABELS.high > high).all()


def test_units_and_latex_are_understood_by_their_readers():
    from astropy import units
    from matplotlib.mathtext import MathTextParser

    for label in LABELS.values():
        units.Unit(label.unit)
        MathTextParser("agg").parse(label.latex)


def test_a_standard_normal_keeps_its_mass_in_label_space(labels):
    """The density p(labels) = N(z) / |d labels / d z| integrates to one, label by label."""
    for label in labels:
        one = LabelSet((label,))
        y = np.linspace(label.low, label.high, 20001)[1:-1, None]
        with jax.enable_x64(True):
            z = one.to_unconstrained(y)
            density = jnp.exp(-0.5 * z[:, 0] ** 2 - 0.5 * jnp.log(2 * jnp.pi) - one.log_det(z))
        assert np.trapezoid(density, y[:, 0]) == pytest.approx(1.0, abs=1e-6)


def test_round_trip_from_unconstrained(labels, rng):
    z = rng.uniform(-5, 5, (200, len(labels))).astype(np.float32)
    y = labels.to_labels(z)
    # A label of relative precision 2^-24 knows its z to that, times label / (d label / d z).
    slope = np.exp(np.asarray(labels.bijector._bijector.forward_log_det_jacobian(jnp.asarray(z))))
    tolerance = 2**-22 * np.maximum(np.abs(labels.low), np.abs(labels.high)) / slope + 1e-5
    assert (np.abs(labels.to_unconstrained(y) - z) < tolerance).all()
    with jax.enable_x64(True):
        z = jnp.asarray(rng.uniform(-12, 12, (200, len(labels))))
        np.testing.assert_allclose(labels.to_unconstrained(labels.to_labels(z)), z, atol=1e-6)


@pytest.mark.parametrize("distance", [1e-2, 1e-4, 1e-6])
def test_round_trip_from_labels_near_bounds(labels, distance):
    width = labels.high - labels.low
    for y in (labels.low + distance * width, labels.high - distance * width):
        y = y.astype(np.float32)
        back = np.asarray(labels.to_labels(labels.to_unconstrained(y)))
        ulp = np.spacing(np.maximum(np.abs(labels.low), np.abs(labels.high)).astype(np.float32))
        assert (np.abs(back - y) <= 4 * ulp + 1e-6 * distance * width).all()


@pytest.mark.parametrize("x64", [False, True])
@given(z=st.floats(-1e6, 1e6))
def test_no_value_leaves_the_bounds_or_loses_its_way_back(x64, z):
    for labels in SETS.values():
        with jax.enable_x64(x64):
            y = labels.to_labels(jnp.full(len(labels), z, dtype=float))
            low, high = labels.low.astype(y.dtype), labels.high.astype(y.dtype)
            assert ((y > low) & (y < high)).all()
            assert np.isfinite(labels.to_unconstrained(y)).all()
            assert np.isfinite(labels.log_det(jnp.full(len(labels), z, dtype=float)))


def test_log_det_is_that_of_the_jacobian(labels, rng):
    for x64, tolerance in ((False, 2e-4), (True, 1e-10)):
        with jax.enable_x64(x64):
            z = jnp.asarray(rng.uniform(-6, 6, (20, len(labels))), dtype=float)
            jacobian = jax.jit(jax.vmap(jax.jacfwd(labels.bijector.forward)))(z)
            expected = np.linalg.slogdet(np.asarray(jacobian, np.float64))[1]
            np.testing.assert_allclose(labels.log_det(z), expected, atol=tolerance * len(labels))
            y, forward = jax.jit(labels.bijector.forward_and_log_det)(z)
            back, inverse = jax.jit(labels.bijector.inverse_and_log_det)(y)
            assert forward.shape == inverse.shape == (20,)
            np.testing.assert_allclose(inverse, -forward, atol=100 * tolerance)
            np.testing.assert_allclose(back, z, atol=100 * tolerance)


@pytest.mark.parametrize("z", [-80.0, -20.0, 0.0, 20.0, 80.0])
def test_log_det_in_float32_is_exact_far_out(labels, z):
    """Where the labels saturate the log-determinant goes on as -|z|: no underflow to minus infinity."""
    z = np.full(len(labels), z)
    exact = np.sum(np.log(labels.high - labels.low) - np.logaddexp(0, z) - np.logaddexp(0, -z))
    assert labels.log_det(z.astype(np.float32)) == pytest.approx(exact, rel=1e-6, abs=1e-5)


def test_derivatives(labels, rng):
    with jax.enable_x64(True):
        z = jnp.asarray(rng.uniform(-4, 4, len(labels)))
        forward, inverse = (
            jax.jit(labels.bijector.forward_and_log_det),
            jax.jit(labels.bijector.inverse_and_log_det),
        )
        check_grads(forward, (z,), order=1, rtol=1e-6)
        check_grads(inverse, (forward(z)[0],), order=1, rtol=1e-4)
        exact = jax.jit(jax.grad(labels.log_det))(z)
    single = jax.jit(jax.grad(labels.log_det))(jnp.asarray(z, jnp.float32))
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, exact, rtol=1e-5, atol=1e-6)


def test_jit_vmap_and_distribution(labels, rng):
    z = jnp.asarray(rng.normal(size=(5, 3, len(labels))), jnp.float32)
    expected = labels.to_labels(z)
    np.testing.assert_allclose(jax.jit(labels.to_labels)(z), expected, rtol=1e-6)
    np.testing.assert_allclose(jax.vmap(jax.vmap(labels.to_labels))(z), expected, rtol=1e-6)
    base = distrax.MultivariateNormalDiag(jnp.zeros(len(labels)), jnp.ones(len(labels)))
    transformed = distrax.Transformed(base, labels.bijector)
    np.testing.assert_allclose(
        transformed.log_prob(expected), base.log_prob(z) - labels.log_det(z), rtol=1e-4, atol=2e-3
    )


def test_selection_and_order():
    chosen = NINE_LABELS.select(["fe_h", "teff"])
    assert chosen.names == ("fe_h", "teff") and chosen.low.tolist() == [-2.8, 3800.0]
    assert len(chosen) == 2 and chosen.index("teff") == 1
    assert hash(NINE_LABELS.select(NINE_LABELS.names)) == hash(NINE_LABELS)
    with pytest.raises(InputError, match="found 'feh'; expected one of teff, logg"):
        NINE_LABELS.index("feh")


def test_bijectors_know_their_equals():
    assert ScaledSigmoid(0.0, 1.0).same_as(ScaledSigmoid(0.0, 1.0))
    assert not ScaledSigmoid(0.0, 1.0).same_as(ScaledSigmoid(0.0, 2.0))


@pytest.mark.parametrize("value", [np.nan, np.inf, 3800.0, 100.0])
def test_validate_names_label_row_and_value(value):
    labels = np.tile([5772.0, 4.4] + 7 * [0.0], (3, 1))
    NINE_LABELS.validate(labels)
    labels[1, 0] = value
    with pytest.raises(
        InputError, match=f"label teff in row 1: found {value} K; expected a value between 3800"
    ):
        NINE_LABELS.validate(labels)
    with pytest.raises(InputError, match=r"a last axis of 9 labels"):
        NINE_LABELS.validate(labels[:, :8])


def test_bad_definitions_are_refused():
    for low, high in itertools.product((1.0, np.nan, np.inf), (1.0, np.nan, -np.inf)):
        with pytest.raises(InputError, match="bounds"):
            Label("x", "", low, high, "$x$", "", "")
    with pytest.raises(InputError, match="each name once"):
        label_set("teff", "teff")


def test_an_error_survives_pickling():
    error = InputError("file a.fits", "b", "c", "do d")
    copy = pickle.loads(pickle.dumps(error))
    assert str(copy) == str(error) == "file a.fits: found b; expected c; do d" and copy.fix == "do d"


def test_arrays_are_read_by_name_in_any_order(rng):
    """In every order of the labels the same star has the same temperature, gravity and abundance ratios."""
    values = rng.normal(size=(4, 2, 9)).astype(np.float32)
    expected = values[..., 3:] - values[..., 2:3]
    assert NINE_LABELS.elements == ("al_h", "mg_h", "ca_h", "ni_h", "ti_h", "si_h")
    for _ in range(5):
        order = rng.permutation(9)
        mixed, star = LabelSet(tuple(NINE_LABELS.labels[i] for i in order)), values[..., order]
        for array in (star, jnp.asarray(star)):
            for found, column in zip(mixed.stellar(array), (0, 1, 2), strict=True):
                np.testing.assert_array_equal(found, values[..., column])
            np.testing.assert_array_equal(mixed.take(array, NINE_LABELS.names), values)
            x_fe = dict(zip(mixed.elements, np.moveaxis(np.asarray(mixed.x_fe(array)), -1, 0), strict=True))
            for i, name in enumerate(NINE_LABELS.elements):
                np.testing.assert_array_equal(x_fe[name], expected[..., i])
        np.testing.assert_allclose(star @ mixed.x_fe_matrix.T, mixed.x_fe(star), rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(mixed.step, NINE_LABELS.step[order])
        assert mixed.scaled_solar(5000.0, 2.0, -1.0).tolist() == [
            {"teff": 5000.0, "logg": 2.0}.get(name, -1.0) for name in mixed.names
        ]
    np.testing.assert_array_equal(NINE_LABELS.take(values[0, 0], ()), np.zeros(0))
    with pytest.raises(InputError, match="found ebv; expected only teff, logg and abundances"):
        label_set("teff", "logg", "ebv").scaled_solar(5000.0, 2.0, -1.0)
    with pytest.raises(InputError, match="labels of the prior: found logg, teff; expected teff, logg"):
        label_set("teff", "logg").check_same(("logg", "teff"), "labels of the prior")


def test_elements_have_their_atomic_numbers():
    from jaxspec.physics.linelists.text import atomic_numbers

    for label in LABELS.values():
        expected = None if label.element is None else atomic_numbers()[label.element]
        assert label.atomic_number == expected


def test_stored_labels_take_what_they_lack_from_those_of_their_name():
    """Weights from before labels had step sizes hold eight fields of each label."""
    for label in LABELS.values():
        stored = dataclasses.asdict(label)
        assert Label.from_dict(json.loads(json.dumps(stored))) == label
        old = {name: stored[name] for name in ("name", "unit", "low", "high", "latex", "ucd", "description")}
        assert Label.from_dict(old) == label
    changed = Label.from_dict({"name": "teff", "low": 3000.0, "step": 50.0})
    assert changed == dataclasses.replace(LABELS["teff"], low=3000.0, step=50.0)
    other = Label.from_dict({**old, "name": "age", "unit": "Gyr", "low": 0.0, "high": 20.0})
    assert (other.step, other.survey_step, other.systematic) == (0.5, 0.5, 0.0)
    with pytest.raises(InputError, match=r"label\.steps: found no such setting.*did you mean label\.step"):
        Label.from_dict({**old, "steps": 1.0})
    shipped = json.loads((ROOT / "jaxspec" / "amortised" / "weights" / "giraffe" / "config.json").read_text())
    assert LabelSet(tuple(map(Label.from_dict, shipped["settings"]["label_set"]))) == NINE_LABELS


# Arrays that hold one number for each label.
OF_LABELS = re.compile(
    r"(^|_)(labels|unit|units|step|steps|start|moved|median|estimate|truth|systematic)$", re.I
)


def positional(source: str) -> list[str]:
    """Expressions that take labels by their place: a number, or a slice that begins or ends with one, on the
    last axis of an array of labels; and tuples or lists of one number for each of six labels or more."""

    def number(node, least=0):
        if isinstance(node, ast.UnaryOp):
            return number(node.operand, least)
        return isinstance(node, ast.Constant) and type(node.value) is int and node.value >= least

    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Subscript):
            name = getattr(node.value, "id", getattr(node.value, "attr", ""))
            last = node.slice.elts[-1] if isinstance(node.slice, ast.Tuple) else node.slice
            ends = (last.lower, last.upper) if isinstance(last, ast.Slice) else (last,)
            least = 0 if name.endswith("labels") else 2  # a difference of neighbours takes [1:] and [:-1]
            if OF_LABELS.search(name) and any(number(end, least) for end in ends):
                found.append(ast.unparse(node))
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
            for side, other in ((node.left, node.right), (node.right, node.left)):
                repeated = isinstance(side, ast.Tuple | ast.List) and number(other, 6)
                if repeated and all(
                    isinstance(x, ast.Constant) and type(x.value) is float for x in side.elts
                ):
                    found.append(ast.unparse(node))
    return found


@pytest.mark.parametrize(
    "source",
    ["labels[:, 0]", "labels[..., 3:]", "f(*labels[:3])", "star.labels[2]", "unit[3:]", "(0.06,) * 6",
     "np.array([60.0, 0.1] + [0.05] * 7)", "labels.at[0].set(1)[labels[-1]]", "estimate[:, :3]"],
)  # fmt: skip
def test_labels_by_place_are_seen(source):
    assert positional(source)


@pytest.mark.parametrize(
    "source", ["labels[:n]", "labels[:, label_set.index(x)]", "labels[None]", "step[1:]"]
)
def test_labels_by_name_are_let_through(source):
    assert not positional(source)


def test_nothing_takes_labels_by_their_place():
    """Everything but this module asks the label set, so that a set in another order is no other result."""
    found = {
        str(path.relative_to(ROOT)): expressions
        for path in sorted((ROOT / "jaxspec").rglob("*.py"))
        if path.name != "labels.py" and (expressions := positional(path.read_text()))
    }
    assert not found
