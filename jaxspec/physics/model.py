"""From stellar labels to the synthetic spectrum: atmosphere, chemistry, lines and transfer in one module."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxspec.errors import InputError
from jaxspec.labels import NINE_LABELS, LabelSet
from jaxspec.physics.atmosphere import Atmosphere, AtmosphereGrid
from jaxspec.physics.chemistry import AtomicData, ChemicalState, abundances
from jaxspec.physics.departures import ElementDepartures, departures_of
from jaxspec.physics.linelists.text import atomic_numbers
from jaxspec.physics.lines import LineList
from jaxspec.physics.synthesis import SurfaceFlux, Window, chemistry_of, optical_depth_5000, synthesize

# Lines this far (A) beyond a window still shape its edge.
LINE_MARGIN = 3.0
GAP = 3.0  # A, more than any gap of the shipped list inside the windows that it is for


class StellarModel(eqx.Module):
    """Synthetic spectra of stars given by labels, unbroadened, in one or more windows.

    `fe_h` sets iron, every metal that is not itself a label, and the atmosphere's metallicity; each other
    label sets its element; helium is solar. Call it with one star's labels, in the order of `label_set`, and
    vmic; batch with `jax.vmap`. Lines are in LTE, but for those between levels that `departures` has.

    Outside the grid of atmospheres nothing is extrapolated: `InputError`, and in a compiled function, which
    cannot raise, a spectrum of NaN.
    """

    atoms: AtomicData
    grid: AtmosphereGrid
    lines: tuple[LineList, ...]
    windows: tuple[Window, ...] = eqx.field(static=True)
    label_set: LabelSet = eqx.field(static=True)
    departures: tuple[ElementDepartures, ...] = ()

    @staticmethod
    def create(
        windows: tuple[Window, ...],
        label_set: LabelSet = NINE_LABELS,
        *,
        calibrated: bool = False,
        lines: LineList | None = None,
        departures: tuple[ElementDepartures, ...] = (),
        interpolation: str = "cubic",
    ) -> "StellarModel":
        """The model with the shipped atoms and atmospheres.

        Lines are the shipped ones, log gf as published or calibrated, or those of `lines` (see
        `linelists.read_line_list`) that reach into each window. Raises `InputError` where the list has none.
        `departures` are of one star: they stay the same for all that this model is called with.
        `interpolation` between atmospheres is "cubic" or "linear" (see `AtmosphereGrid`).
        """
        if lines is None:
            chosen = tuple(
                LineList.load(w.low - LINE_MARGIN, w.high + LINE_MARGIN, calibrated=calibrated)
                for w in windows
            )
            for w, near in zip(windows, chosen, strict=True):
                _check_covered(near, w)
        elif calibrated:
            raise InputError(
                "calibrated",
                "True with lines of your own",
                "False",
                "the corrections are of the shipped lines",
            )
        else:
            chosen = tuple(_reaching(lines, w) for w in windows)
        grid = AtmosphereGrid.load(interpolation)
        return StellarModel(AtomicData.load(), grid, chosen, tuple(windows), label_set, tuple(departures))

    @property
    def approximation(self) -> str:
        """How populations of levels are computed: "LTE", or "NLTE" with the elements that depart from it."""
        symbols = {z: symbol for symbol, z in atomic_numbers().items()}
        elements = ", ".join(symbols[table.element] for table in self.departures)
        return f"NLTE ({elements})" if elements else "LTE"

    @property
    def wavelength(self) -> Float[np.ndarray, " pixels"]:
        """Air wavelengths (A) of all windows, one after the other."""
        return np.concatenate([w.wavelength for w in self.windows])

    def composition(self, labels: Float[Array, " labels"]) -> Float[Array, " elements"]:
        """ln n_X / n_H of every element for these labels."""
        value = dict(zip(self.label_set.names, labels, strict=True))
        x_h = {}
        for name in self.label_set.elements:
            z = self.label_set[name].atomic_number
            assert z is not None
            x_h[z] = value[name]
        return abundances(value["fe_h"], x_h)

    def structure(self, labels: Float[Array, " labels"]) -> tuple[Atmosphere, ChemicalState]:
        """The atmosphere of these labels and the chemical state of its layers.

        Raises `InputError` outside the grid of atmospheres (unless it is being compiled).
        """
        solve = chemistry_of
        if not isinstance(labels, jax.core.Tracer):
            with jax.ensure_compile_time_eval():  # constants of a compiled function have values, too
                self.grid.check(*self.label_set.stellar(labels))
            solve = _compiled_chemistry
        atmosphere = self.grid(*self.label_set.stellar(labels))
        return atmosphere, solve(self.atoms, atmosphere, self.composition(labels))

    def surface_flux(self, labels: Float[Array, " labels"], vmic: Float[Array, ""]) -> SurfaceFlux:
        """Flux and continuum (erg s^-1 cm^-2 A^-1) on `wavelength`."""
        atmosphere, state = self.structure(labels)
        parts = []
        for lines, window in zip(self.lines, self.windows, strict=True):
            departures = None
            if self.departures:
                log_tau = jnp.log10(optical_depth_5000(atmosphere, state))
                departures = departures_of(lines, self.departures, log_tau)
            parts.append(synthesize(self.atoms, lines, window, atmosphere, state, vmic, departures))
        inside = self.grid.inside(*self.label_set.stellar(labels))
        return SurfaceFlux(
            *(jnp.where(inside, jnp.concatenate(x), jnp.nan) for x in zip(*parts, strict=True))
        )

    def __call__(self, labels: Float[Array, " labels"], vmic: Float[Array, ""]) -> Float[Array, " pixels"]:
        """Continuum-normalised flux on `wavelength`."""
        surface = self.surface_flux(labels, vmic)
        return surface.flux / surface.continuum


# Operation by operation it takes minutes.
_compiled_chemistry = jax.jit(chemistry_of)


def _check_covered(lines: LineList, window: Window) -> None:
    """Refuse a window of which the shipped list, which is for GIRAFFE, leaves a part without lines."""
    stations = np.concatenate([[window.low], np.sort(np.asarray(lines.wavelength)), [window.high]])
    if not len(lines) or np.diff(stations).max() > GAP:
        raise InputError(
            f"window {window.low:g}-{window.high:g} A",
            f"{len(lines)} lines of the shipped list, which covers 5327-5612 and 8475-8985 A",
            "lines all over the window",
            "give a line list of your own: lines=FILE (VALD, Kurucz, MOOG or Turbospectrum)",
        )


def _reaching(lines: LineList, window: Window) -> LineList:
    """The lines that have opacity in a window, or are near it."""
    outside = np.maximum(window.low - lines.wavelength, lines.wavelength - window.high)
    near = np.flatnonzero(outside <= np.maximum(lines.reach, LINE_MARGIN))
    if not len(near):
        raise InputError(
            "lines",
            f"{len(lines)} lines between {lines.wavelength.min():.1f} and {lines.wavelength.max():.1f} A",
            f"some near the window {window.low:g}-{window.high:g} A",
            "read a list that covers the window",
        )
    return lines[near]
