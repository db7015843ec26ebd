"""Shares of the absorption where they are known: lines apart, lines on top of each other, weak lines."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

from jaxspec.errors import InputError
from jaxspec.physics.identify import line_identifier, strongest
from jaxspec.physics.lines import LineList
from jaxspec.physics.model import StellarModel
from jaxspec.physics.synthesis import Window
from tests.physics.test_lines import one_line

SUN = np.array([5777.0, 4.44, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])
WINDOW = Window(5524.0, 5534.0, 0.02)


@pytest.fixture(scope="module")
def made_up():
    """An isolated line; two of iron, 3 to 1, at one place; titanium on nickel; one outside the window."""
    wavelength = [5525.0, 5528.0, 5528.0, 5531.0, 5531.0, 5534.3]
    log_gf = np.array([-3.0, -2.0, -2.0 - np.log10(3), -3.0, -3.0, -2.0])
    lines = one_line(wavelength, element=26, energy=3.0, log_gf=log_gf)
    lines = eqx.tree_at(lambda x: x.element, lines, np.array([25, 25, 25, 21, 27, 25], np.int16))
    model = StellarModel.create((WINDOW,), lines=lines)
    return line_identifier(model)(SUN, 1.0)


def test_a_line_alone_has_its_pixel_to_itself(made_up):
    assert made_up.lines.share[0] > 0.995  # H alpha's far wing has the rest
    at = np.argmin(np.abs(made_up.wavelength - 5525.0))
    assert made_up.lines.depth[0] == pytest.approx(1 - made_up.flux[at], abs=3e-3)


def test_lines_at_one_place_share_it_by_their_opacity(made_up):
    """Same level, same species: as 3 to 1, though the stronger is saturated and the depths are not so."""
    np.testing.assert_allclose(made_up.lines.share[1:3], [0.75, 0.25], atol=2e-3)
    assert made_up.lines.depth[1] / made_up.lines.depth[2] < 1.7
    assert made_up.lines.share[3:5].sum() == pytest.approx(1.0, abs=0.01)


def test_what_lies_outside_has_a_width_and_no_share(made_up):
    assert np.isnan(made_up.lines.share[5]) and made_up.lines.equivalent_width[5] > 50


def test_shares_of_a_pixel_add_up(made_up):
    assert made_up.elements == ("H", "Ti", "Fe", "Ni")
    dark = made_up.flux < 1 - 1e-5
    np.testing.assert_allclose(made_up.share.sum(axis=0)[dark], 1.0, atol=1e-5)
    np.testing.assert_allclose(made_up.absorption.sum(axis=0), 1.0 - made_up.flux, atol=1e-5)


def test_share_is_the_response_to_stronger_lines(made_up):
    """Titanium and nickel made 1 % stronger, one after the other: the depth grows as the shares say."""
    lines = one_line([5531.0, 5531.0], element=26, energy=3.0, log_gf=-3.0)
    lines = eqx.tree_at(lambda x: x.element, lines, np.array([21, 27], np.int16))
    model = StellarModel.create((WINDOW,), lines=lines)
    with_log_gf = eqx.filter_jit(
        lambda x: eqx.tree_at(lambda m: m.lines[0].log_gf, model, x)(
            jnp.asarray(SUN, jnp.float32), jnp.float32(1.0)
        )
    )
    step = 0.02
    at = np.argmin(np.abs(made_up.wavelength - 5531.0))
    grown = []
    for i in range(2):
        up, down = (with_log_gf(jnp.asarray(lines.log_gf + s * step * np.eye(2)[i], jnp.float32))
                    for s in (1, -1))  # fmt: skip
        grown.append(float(down[at] - up[at]))
    np.testing.assert_allclose(grown / np.sum(grown), made_up.lines.share[3:5], atol=0.01)


def test_magnesium_and_its_neighbours_in_the_sun():
    """The shipped list about Mg I 5528.40: whose pixels these are, every solar atlas says."""
    lines = LineList.load(5524.5, 5532.0)
    known = np.isin(lines.element, (11, 20, 25))
    strong = np.flatnonzero(known & (np.asarray(lines.log_gf) - 0.9 * lines.energy > -6.0))
    model = StellarModel.create((WINDOW,), lines=lines[strong])
    found = line_identifier(model)(SUN, 1.0)
    first = strongest(found, 3, 5524.5, 5532.0)
    assert list(first.species) == ["Fe I", "Sc II", "Mg I"]
    np.testing.assert_allclose(first.wavelength, [5525.543, 5526.790, 5528.405], atol=0.005)
    assert np.all(first.share > 0.98)
    near = np.abs(found.wavelength - 5528.405) < 0.3
    assert np.all(found.share[found.elements.index("Mg")][near] > 0.97)
    with pytest.raises(InputError, match="Teff 9000"):
        line_identifier(model)(np.array([9000.0, *SUN[1:]]), 1.0)
