"""Forward and reverse derivatives of every public function of the physics against central differences.

In double precision; each function by relative changes of its inputs. A function that is in neither table
fails the test of completeness. The whole synthesis by labels, vmic and log gf is in `test_gradients`.
"""

import importlib
import inspect
import pkgutil

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxspec.physics
from jaxspec.instruments import Arm, Instrument
from jaxspec.labels import NINE_LABELS
from jaxspec.physics import (
    broadening,
    chemistry,
    continuum_opacity,
    departures,
    hydrogen,
    lines,
    synthesis,
    transfer,
    turbulence,
    voigt,
    widths,
)
from jaxspec.physics.atmosphere import Atmosphere, AtmosphereGrid
from jaxspec.physics.broadening import Resampler, VelocityGrid
from jaxspec.physics.chemistry import AtomicData, ChemicalState
from jaxspec.physics.departures import ElementDepartures, LineDepartures
from jaxspec.physics.emulator import Emulator, relative_inputs
from jaxspec.physics.forward import ForwardModel, Nuisances
from jaxspec.physics.synthesis import Window
from tests.physics.precision import double_precision
from tests.physics.test_lines import one_line

STEP = 1e-5
# Layers from the surface to below the continuum's formation, as in the Sun: T, pressure, column mass, ...
TEMPERATURE = np.array([4300.0, 4600.0, 4950.0, 5600.0, 6500.0, 7900.0])
PRESSURE = np.array([4e2, 4e3, 2e4, 7e4, 1.1e5, 1.4e5])
MASS = PRESSURE / 10**4.44
ELECTRONS = np.array([4e10, 4e11, 2e12, 2e13, 3e14, 5e15])
WINDOW = Window(5527.4, 5529.4, 0.05)
LINES = one_line(
    [5528.0, 5528.4, 5528.8], element=np.array([26, 12, 20]), stage=[0, 0, 1], energy=[2.5, 4.3, 1.7],
    log_gf=[-2.0, -1.5, -0.5], damping=[320.25, 2.5, -7.6], reach=0.6,
)  # fmt: skip
GRID = VelocityGrid(5400.0, 3.0, 64)
SPECTRUM = 1 - 0.5 * np.exp(-0.5 * ((np.arange(64) - 30) / 2.0) ** 2)
ARM = Instrument("short", (Arm("short", 5340.0, 5345.0, 0.05, 20_000.0),))
TABLE = ElementDepartures(
    12, np.array([0, 0]), np.array([4.3, 6.542]), np.array([-4.0, -1.0, 1.0]),
    np.array([[0.5, 0.8, 1.0], [0.3, 0.7, 1.0]]),
)  # fmt: skip
ATOMS, EMULATOR = AtomicData.load(), Emulator.load()  # outside of what is traced
LABELS = np.array([5480.0, 3.86, -0.42, -0.3, -0.25, -0.2, -0.4, -0.3, -0.35])


def scaled(base, x):
    """A base value changed by the relative amount x (absolute for a base of 0)."""
    return jnp.asarray(base) * jnp.exp(x)


def star(x) -> tuple[Atmosphere, ChemicalState]:
    """Six layers whose temperature, pressure, electrons, atoms and populations follow x[0] to x[4]."""
    t, pressure = scaled(TEMPERATURE, x[0]), scaled(PRESSURE, x[1])
    total = PRESSURE / (1.380649e-16 * TEMPERATURE)
    populations = jnp.full((6, 92, 3), np.log(1e10)) + x[4]
    return Atmosphere(scaled(MASS, x[1]), t, pressure), ChemicalState(
        electrons=scaled(ELECTRONS, x[2]),
        ln_populations=populations.at[:, 0, 0].set(jnp.log(total / 2) + x[3]),
        neutral_hydrogen=scaled(0.92 * total, x[3]),
        ionised_hydrogen=scaled(0.5 * ELECTRONS, x[2]),
        neutral_helium=scaled(0.08 * total, x[3]),
        molecular_hydrogen=scaled(1e-4 * total, x[3]),
        density=scaled(2.1e-24 * total, x[3]),
    )


def layer(x) -> tuple[jax.Array, ChemicalState]:
    atmosphere, state = star(x)
    return atmosphere.temperature[3], jax.tree.map(lambda v: v[3], state)


def strengths_of(x):
    atmosphere, state = star(x)
    return lines.line_strengths(LINES, ATOMS, atmosphere.temperature, state, 1.2 + x[5])


def in_window(x):
    return lines.line_opacity(strengths_of(x), groups(), len(WINDOW.wavelength))


def groups():
    return lines.group_lines(LINES, WINDOW.low, WINDOW.step, len(WINDOW.wavelength))


def opacity_term(term):
    return lambda x: term(scaled(5500.0, x[5]), *layer(x)) * 1e8


def lone(function, *more):
    def call(x):
        atmosphere, state = star(x)
        return function(LINES, ATOMS, atmosphere, state, 1.2 + x[5], *more)

    return call


def departed_levels(x):
    return LineDepartures(np.array([1]), 0.6 + x[None], 0.4 + x[None, ::-1])


def departed(x):
    atmosphere, _ = star(x)
    found = departures.with_departures(strengths_of(x), LINES, departed_levels(x), atmosphere.temperature)
    return jnp.concatenate([found[0].opacity, found[1].opacity]) * 1e8


def synthesised(chosen, atoms, atmosphere, state, vmic, levels):
    return synthesis.synthesize(atoms, chosen, WINDOW, atmosphere, state, vmic, levels)


STEPS = np.array([0.02, 0.1, 0.3, 0.6, 1.0, 2.0])
SOURCE = np.array([1.0, 1.2, 1.5, 1.9, 2.6, 4.0])
K = np.linspace(0.05, 1.0, 7)
H_LINE = hydrogen.hydrogen_lines(8500.0, 8550.0)[0]

# Name: a function of six relative changes.
CASES = {
    "broadening.bessel_j1": lambda x: broadening.bessel_j1(scaled([0.3, 2.8, 3.3, 12.0], x[0])),
    "broadening.rotation_transform": lambda x: broadening.rotation_transform(
        jnp.asarray(K), scaled(9.0, x[0])
    ),
    "broadening.macroturbulence_transform": lambda x: broadening.macroturbulence_transform(
        jnp.asarray(K), scaled(4.0, x[0])
    ),
    "broadening.gaussian_transform": lambda x: broadening.gaussian_transform(
        jnp.asarray(K), scaled(9.0, x[0])
    ),
    "broadening.pixel_transform": lambda x: broadening.pixel_transform(scaled(K, x[0]), 3.0),
    "broadening.lsf_variance": lambda x: broadening.lsf_variance(scaled([18_000.0, 47_000.0], x[0])),
    "broadening.convolve": lambda x: broadening.convolve(
        scaled(SPECTRUM, x[0]), jnp.exp(-scaled(GRID.frequency, x[1])), 2.0 + x[2], GRID
    ),
    "broadening.Resampler": lambda x: Resampler.create(np.linspace(5.3, 50.2, 20), 64)(
        scaled(SPECTRUM, x[0]) ** 2
    ),
    "chemistry.abundances": lambda x: chemistry.abundances(x[0] - 0.3, {12: x[1], 26: 2 * x[2]})[2:30],
    "chemistry.ln_molecular_constants": lambda x: chemistry.ln_molecular_constants(
        scaled(4800.0, x[0]), jnp.full((92, 3), 1.0) + x[1]
    ),
    "chemistry.solve_chemistry": lambda x: jnp.concatenate([
        jnp.log(jnp.stack(state[:1] + state[2:])) for state in [chemistry.solve_chemistry(
            ATOMS, scaled(4700.0, x[0]), scaled(3e4, x[1]),
            chemistry.abundances(x[2] - 0.2, {12: x[3], 8: x[4]}),
        )]
    ]),
    "chemistry.AtomicData.ln_partition": lambda x: ATOMS.ln_partition(scaled(5300.0, x[0]))[:30],
    "continuum_opacity.h_minus": opacity_term(continuum_opacity.h_minus),
    "continuum_opacity.hydrogen": opacity_term(continuum_opacity.hydrogen),
    "continuum_opacity.helium_minus": opacity_term(continuum_opacity.helium_minus),
    "continuum_opacity.h2_plus": opacity_term(continuum_opacity.h2_plus),
    "continuum_opacity.metals": opacity_term(continuum_opacity.metals),
    "continuum_opacity.absorption": opacity_term(continuum_opacity.absorption),
    "continuum_opacity.scattering": lambda x: continuum_opacity.scattering(
        scaled(5500.0, x[5]), layer(x)[1]
    ) * 1e8,
    "continuum_opacity.occupation_probability": lambda x: continuum_opacity.occupation_probability(
        9.0, star(x)[0].temperature, star(x)[1]
    ),
    "departures.with_departures": departed,
    "departures.departures_of": lambda x: jnp.concatenate(departures.departures_of(
        LINES, (eqx.tree_at(lambda t: t.coefficients, TABLE, scaled(TABLE.coefficients, x[0])),),
        jnp.asarray([-3.0, -0.5]) + x[1],
    )[1:]),
    "departures.ElementDepartures.at": lambda x: eqx.tree_at(
        lambda t: t.coefficients, TABLE, scaled(TABLE.coefficients, x[0])
    ).at(jnp.asarray([-3.0, -0.5, 0.3]) + x[1]),
    "emulator.relative_inputs": lambda x: relative_inputs(scaled(LABELS, x[0]), 1.0 + x[1], NINE_LABELS),
    "emulator.Emulator": lambda x: EMULATOR(scaled(LABELS, x[0]), 1.1 + x[1])[::200],
    "forward.ForwardModel": lambda x: ForwardModel.create(EMULATOR, ARM)(
        scaled(LABELS, x[0]), Nuisances(1.1 + x[1], 3.0 + x[2], 4.0 + x[3], 1.0 + x[4], 1.0 + x[5])
    ),
    "hydrogen.exponential_integral": lambda x: hydrogen.exponential_integral(
        scaled([0.2, 0.9, 1.2, 5.0], x[0])
    ),
    "hydrogen.electron_broadening": lambda x: jnp.concatenate(hydrogen.electron_broadening(
        H_LINE, scaled([0.1, 1.0, 5.0, 20.0, 60.0, 200.0], x[5]), star(x)[0].temperature, star(x)[1].electrons
    )),
    "hydrogen.single_line_opacity": lambda x: jnp.log(hydrogen.single_line_opacity(
        H_LINE, np.array([0.0, 0.3, 1.7, 6.0]), star(x)[0].temperature, star(x)[1], 1.2 + x[5]
    )),
    "hydrogen.hydrogen_opacity": lambda x: jnp.log(hydrogen.hydrogen_opacity(
        np.arange(4859.0, 4863.0, 0.5), star(x)[0].temperature, star(x)[1], 1.2 + x[5]
    )),
    "lines.van_der_waals_width": lambda x: jnp.log(lines.van_der_waals_width(
        LINES, ATOMS, star(x)[0].temperature, star(x)[1]
    )),
    "lines.line_strengths": lambda x: jnp.log(jnp.concatenate(strengths_of(x))),
    "lines.line_opacity": lambda x: in_window(x) * 1e8,
    "synthesis.optical_depth_5000": lambda x: jnp.log(synthesis.optical_depth_5000(*star(x))),
    "synthesis.synthesize": lambda x: jnp.stack(lone(synthesised, departed_levels(x))(x)) * 1e-6,
    "transfer.planck": lambda x: transfer.planck(scaled([4000.0, 8500.0], x[0]), scaled(5000.0, x[1])) * 1e-6,
    "transfer.optical_depth": lambda x: transfer.optical_depth(
        scaled([0.1, 0.2, 0.2, 0.3, 1.0, 4.0], x), scaled(MASS, x[0])
    ),
    "transfer.emergent_intensity": lambda x: transfer.emergent_intensity(
        scaled(STEPS, x), scaled(SOURCE, x[::-1]), 0.6
    ),
    "transfer.emergent_flux": lambda x: transfer.emergent_flux(scaled(STEPS, x), scaled(SOURCE, x[::-1])),
    "transfer.mean_intensity_with_scattering": lambda x: transfer.mean_intensity_with_scattering(
        scaled(STEPS, x), scaled(SOURCE, x[::-1]), scaled([0.6, 0.5, 0.4, 0.2, 0.1, 0.05], x[1])
    ),
    "turbulence.vmic_calibration": lambda x: turbulence.vmic_calibration(
        scaled([5900.0, 4400.0], x[0]), scaled([4.2, 2.1], x[1]), x[2] - 0.4
    ),
    "turbulence.vmac_calibration": lambda x: turbulence.vmac_calibration(
        scaled([5900.0, 4400.0], x[0]), scaled([4.2, 2.1], x[1]), x[2] - 0.4
    ),
    "voigt.voigt": lambda x: voigt.voigt(
        scaled([0.001, 0.1, 2.0], x[0]), jnp.asarray([0.3, 3.0, 20.0]) + x[1]
    ),
    "voigt.voigt_and_slopes": lambda x: jnp.stack(voigt.voigt_and_slopes(
        scaled([0.001, 0.1, 2.0], x[0]), jnp.asarray([0.3, 3.0, 20.0]) + x[1]
    )),
    "widths.curves_of_growth": lone(widths.curves_of_growth, np.array([-1.0, 0.5])),
    **{
        f"atmosphere.AtmosphereGrid {kind}": lambda x, kind=kind: jnp.log(jnp.stack(jax.tree.leaves(
            AtmosphereGrid.load(kind)(scaled(5480.0, x[0]), scaled(3.86, x[1]), x[2] - 0.42)
        )))
        for kind in ("linear", "cubic")
    },
}  # fmt: skip

# Why the others have no derivative, or where it is tested.
ELSEWHERE = {
    **dict.fromkeys(
        ("synthesis.continuum_between", "synthesis.continuum_flux", "synthesis.emergent_with_lines",
         "synthesis.flux_in_window"), "the steps of synthesize",
    ),
    "widths.lone_lines": "all of curves_of_growth", "widths.equivalent_widths": "all of curves_of_growth",
    **dict.fromkeys(
        ("jacobian.flux_and_jacobian", "jacobian.with_jacobian"), "are the derivative, see test_jacobian"
    ),
    "synthesis.chemistry_of": "solve_chemistry in every layer",
    "departures.ElementDepartures": "see its method",
    "forward.forward_model": "loads the model on the host; its flux is in test_forward",
    "fit.with_elements": "gives a model more labels, on the host",
    "fit.fit_spectrum": "an optimiser on the host; its derivatives are the model's",
    "identify.line_identifier": "makes tables on the host", "identify.strongest": "sorts a table",
    "lines.group_lines": "where lines stand on a grid, on the host",
    "hydrogen.hydrogen_lines": "constants of lines, on the host",
    "hydrogen.holtsmark": "a table made on the host", "hydrogen.ion_profile": "a table made on the host",
    "widths.abundances_from_widths": "inverts a curve on the host",
}  # fmt: skip
HOST = ("atmospheres", "linelists", "data", "emulator_fit")  # readers, and training


@pytest.fixture(scope="module")
def double():
    with double_precision():
        yield


@pytest.mark.parametrize("name", CASES)
def test_derivatives_are_those_of_central_differences(name, double):
    """Along one direction, of one random projection of the outputs each scaled to order one."""
    rng = np.random.default_rng(len(name))
    at, direction = 0.01 * rng.normal(size=6), rng.normal(size=6)
    function = CASES[name]
    size = np.asarray(jax.eval_shape(function, jnp.asarray(at)).shape)
    weights = rng.normal(size=size)

    @jax.jit
    def everything(x):
        def project(x):
            return jnp.sum(weights * function(x))

        value, forward = jax.jvp(project, (x,), (jnp.asarray(direction),))
        return value, forward, jax.grad(project)(x) @ direction

    value, forward, reverse = (float(v) for v in everything(jnp.asarray(at)))
    above, below = (float(everything(jnp.asarray(at + s * STEP * direction))[0]) for s in (1, -1))
    difference = (above - below) / (2 * STEP)
    assert np.isfinite(value) and forward != 0
    scale = max(abs(difference), 1e-3 * abs(value))
    assert abs(forward - difference) < 2e-5 * scale
    assert abs(reverse - forward) < 1e-8 * scale


def test_every_public_function_is_in_a_table():
    missing = []
    for module in pkgutil.walk_packages(jaxspec.physics.__path__, "jaxspec.physics."):
        short = module.name.removeprefix("jaxspec.physics.")
        if short.split(".")[0] in HOST:
            continue
        for name, value in vars(importlib.import_module(module.name)).items():
            own = inspect.isfunction(value) and value.__module__ == module.name
            if own and not name.startswith("_") and f"{short}.{name}" not in (*CASES, *ELSEWHERE):
                missing.append(f"{short}.{name}")
    assert not missing
