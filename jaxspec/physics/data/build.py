"""Rebuild the shipped physics tables from their published sources.

    python -m jaxspec.physics.data.build atoms   EXOJAX_WHEEL
    python -m jaxspec.physics.data.build abo     LIGHTWEAVER_WHEEL
    python -m jaxspec.physics.data.build bound_free          # with lightweaver installed
    python -m jaxspec.physics.data.build atlas9  FRAUNHOFER_WHEEL
    python -m jaxspec.physics.data.build lines   GES_LINELIST_V6_TURBOSPECTRUM.gz

The wheels are `pip download --no-deps exojax lightweaver Fraunhofer` (all MIT); only published tables are
taken:

- `atoms.npz`: partition functions of Barklem & Collet (2016, A&A 588, A96), as polynomials in ln T fitted
  over 1500-10000 K, and ionisation energies of the NIST Atomic Spectra Database.
- `abo.npz`: broadening by hydrogen of neutral s-p, p-d and d-f lines (references in `linelists/abo.py`).
- `bound_free.npz`: absorption by Mg I, Al I and Si I in LTE, from photoionisation cross-sections of the
  Opacity Project (TOPbase; Cunto et al. 1993, A&A 275, L5).
- `atlas9.npz`: ATLAS9 ODFNEW model atmospheres (Castelli & Kurucz 2003, IAU Symp. 210, A20; vturb 2 km/s,
  l/H 1.25) for 3500-7500 K, log g 0-5, [M/H] -2.5 to 0.5 and [alpha/M] 0 and 0.4.
- `lines.npz`: atomic lines of the Gaia-ESO list v6 (Heiter et al. 2021, A&A 645, A106) in both windows.
"""

import re
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
WINDOWS = ((5327.0, 5613.0), (8475.0, 8985.0))

# Temperatures of the columns of table 8 of Barklem & Collet (2016), K.
BARKLEM_TEMPERATURES = np.array(
    [1e-5, 1e-4, 1e-3, 1e-2, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1.0, 1.3, 1.7, 2.0, 3.0, 5.0, 7.0, 10.0, 15.0,
     20.0, 30.0, 50.0, 70.0, 100.0, 130.0, 170.0, 200.0, 250.0, 300.0, 500.0, 700.0, 1000.0, 1500.0, 2000.0,
     3000.0, 4000.0, 5000.0, 6000.0, 7000.0, 8000.0, 9000.0, 10000.0]
)  # fmt: skip
STAGES = ("I", "II", "III")
DEGREE = 6
# Terrestrial fractions of the isotopes that the list gives apart, as in Grevesse, Asplund & Sauval (2007).
ISOTOPE_FRACTIONS = {
    (60, 142): 0.272, (60, 143): 0.122, (60, 144): 0.238, (60, 145): 0.083, (60, 146): 0.172,
    (60, 148): 0.057, (60, 150): 0.056,
}  # fmt: skip


def build_atoms(wheel: Path) -> None:
    """Write `atoms.npz`.

    symbol [92], log_partition [92, 3, DEGREE + 1] in x = ln(T / 5000 K), ionisation_energy [92, 3] in eV.
    """
    with zipfile.ZipFile(wheel) as archive:
        partition = archive.read("exojax/data/atom/barklem_collet_2016_pff.txt").decode()
        energies = archive.read("exojax/data/atom/NIST_Atomic_Ionization_Energies.txt").decode()
    use = BARKLEM_TEMPERATURES >= 1500
    x = np.log(BARKLEM_TEMPERATURES[use] / 5000)
    fits, worst = {}, 0.0
    for row in partition.splitlines():
        name, *values = row.split()
        if "_" in name:
            y = np.log(np.array(values, float)[use])
            fits[name] = np.polynomial.polynomial.polyfit(x, y, DEGREE)
            worst = max(worst, np.abs(np.polynomial.polynomial.polyval(x, fits[name]) - y).max())
    print(f"largest error of ln U in the fit: {worst:.4f}")
    ionisation = np.full((92, 3), np.nan)
    symbols = [""] * 92
    for row in energies.splitlines():
        cells = [cell.strip() for cell in row.split("|")]
        if len(cells) > 5 and cells[0].isdigit():
            number, charge = int(cells[0]), int(cells[2].replace("+", ""))
            energy = re.sub(r"[()\[\]]", "", cells[4])
            if number <= 92 and charge < 3 and energy:
                ionisation[number - 1, charge] = float(energy)
                symbols[number - 1] = cells[1].split()[0]
    log_partition = np.zeros((92, 3, DEGREE + 1))
    for z, symbol in enumerate(symbols):
        for stage, roman in enumerate(STAGES):
            if f"{symbol}_{roman}" in fits:
                log_partition[z, stage] = fits[f"{symbol}_{roman}"]
    np.savez_compressed(
        HERE / "atoms.npz",
        symbol=np.array(symbols),
        log_partition=log_partition.astype(np.float32),
        ionisation_energy=ionisation.astype(np.float32),
    )


def build_abo(wheel: Path) -> None:
    """Write `abo.npz`: sigma and alpha [lower momentum, higher momentum, 2] by pair of orbitals."""
    tables: dict[str, Any] = {}
    with zipfile.ZipFile(wheel) as archive:
        for pair in ("sp", "pd", "df"):
            text = archive.read(f"lightweaver/Data/Barklem_{pair}data.dat").decode().splitlines()
            # cross-sections first, then exponents
            sigma, alpha = np.split(np.loadtxt(text, comments="c"), 2)
            assert sigma.min() > 100 and 0 < alpha.min() < alpha.max() < 1
            tables[pair] = np.stack([sigma, alpha], axis=-1).astype(np.float32)
    np.savez_compressed(HERE / "abo.npz", **tables)


PHOTOIONISATION_FWHM = 0.03  # of the wavelength: resonances are no better placed


def build_bound_free() -> None:
    """Write `bound_free.npz`.

    ln of sum_i g_i exp(-E_i / kT) sigma_i, cm^2, for element [n] on ln_wavelength (A) and theta (5040 K / T):
    [n, wavelengths, temperatures]. Cross-sections are smoothed as by Allende Prieto et al. (2003, ApJS 147,
    363). Levels above those tabulated are hydrogenic: Kramers' cross-section, an integral up to the limit.
    """
    from lightweaver.rh_atoms import Al_atom, MgI_66_atom, Si_atom
    from scipy.ndimage import gaussian_filter1d

    from jaxspec.physics.constants import BOLTZMANN_EV
    from jaxspec.physics.continuum_opacity import HC_EV_ANGSTROM, RYDBERG_ANGSTROM, RYDBERG_EV

    step, coarse = 0.0005, 10
    ln_wavelength = np.arange(np.log(2500.0), np.log(24000.0), step)
    wavelength = np.exp(ln_wavelength)
    theta = np.arange(0.3, 2.01, 0.1)
    kt = BOLTZMANN_EV * 5040.0 / theta
    elements, tables = [], []
    for atom in (MgI_66_atom(), Al_atom(), Si_atom()):
        neutral = [level for level in atom.levels if level.stage == 0]
        ion = next(level for level in atom.levels if level.stage == 1)
        ground = min(level.E for level in neutral)
        total = np.zeros((len(wavelength), len(theta)))
        for continuum in atom.continua:
            level = atom.levels[continuum.i]
            if level.stage:
                continue
            edge = 1e8 / (atom.levels[continuum.j].E - level.E)  # A, from cm^-1
            if hasattr(continuum, "wavelengthGrid"):  # nm, m^2
                grid, sigma = (np.asarray(x) for x in (continuum.wavelengthGrid, continuum.alphaGrid))
                cross_section = np.interp(wavelength, 10.0 * grid, 1e4 * sigma, right=0.0)
            else:
                cross_section = 1e4 * continuum.alpha0 * (wavelength / edge) ** 3
            cross_section = np.where(wavelength <= edge, cross_section, 0.0)
            energy = (level.E - ground) * HC_EV_ANGSTROM * 1e-8
            smooth = gaussian_filter1d(cross_section, PHOTOIONISATION_FWHM / 2.355 / step)
            total += smooth[:, None] * level.g * np.exp(-energy / kt)
        limit = (ion.E - ground) * HC_EV_ANGSTROM * 1e-8
        highest = limit - (max(level.E for level in neutral) - ground) * HC_EV_ANGSTROM * 1e-8
        n = np.floor(np.sqrt(RYDBERG_EV / highest)) + 0.5  # half way to the next shell
        tail = (
            2.0 * ion.g * 7.91e-18 * (wavelength * RYDBERG_ANGSTROM)[:, None] ** 3 * kt / (2.0 * RYDBERG_EV)
        )
        total += tail * np.exp(-limit / kt) * np.expm1(RYDBERG_EV / n**2 / kt)
        elements.append(atom.element.Z - 1)
        tables.append(np.log(total)[::coarse])
    np.savez_compressed(
        HERE / "bound_free.npz",
        element=np.array(elements),
        ln_wavelength=ln_wavelength[::coarse],
        theta=theta,
        ln_cross_section=np.array(tables, np.float32),
    )


def build_atlas9(wheel: Path) -> None:
    """Write `atlas9.npz`: log10 of rhox, T, Pgas, electron density [teff, logg, m_h, alpha_m, 72, 4].

    `filled` marks absent nodes. Absent nodes (hot and of low gravity) carry the nearest higher gravity's
    structure with the pressure scaled by the ratio of gravities to the power 0.6, so that the grid stays
    rectangular; they are flagged and lie outside the label range.
    """
    from jaxspec.physics.atmospheres.atlas import read_atlas_layers
    from jaxspec.physics.atmospheres.text import Text

    teff, logg = np.arange(3500.0, 7501.0, 250.0), np.arange(0.0, 5.01, 0.5)
    m_h, alpha = np.arange(-2.5, 0.51, 0.5), np.array([0.0, 0.4])
    grid = np.full((len(teff), len(logg), len(m_h), len(alpha), 72, 4), np.nan)
    with zipfile.ZipFile(wheel) as archive:
        for k, metallicity in enumerate(m_h):
            for m, enhanced in enumerate(("", "a")):
                sign = "p" if metallicity >= 0 else "m"
                name = f"fraunhofer/data/a{sign}{abs(round(metallicity * 10)):02d}{enhanced}k2odfnew.dat"
                text = archive.read(name).decode()
                for model in re.split(r"(?=TEFF\s)", text)[1:]:
                    t, g = float(model.split()[1]), float(model.split()[3])
                    if not (np.isclose(teff, t).any() and np.isclose(logg, g).any()):
                        continue
                    cards = Text(f"{name}, Teff {t:g}, log g {g:g}", model.splitlines())
                    layers = read_atlas_layers(cards, cards.find("^READ DECK6"))[:, :4]
                    grid[np.argmin(abs(teff - t)), np.argmin(abs(logg - g)), k, m] = np.log10(layers)
    filled = np.isnan(grid[..., 0, 0])
    for j in range(len(logg) - 2, -1, -1):
        missing = filled[:, j]
        step = 0.5 * 0.6
        grid[:, j][missing] = grid[:, j + 1][missing] - np.array([-0.2, 0.0, step, step])
    assert np.isfinite(grid).all()
    np.savez_compressed(
        HERE / "atlas9.npz",
        teff=teff,
        logg=logg,
        m_h=m_h,
        alpha_m=alpha,
        log_structure=grid.astype(np.float32),
        filled=filled,
    )
    print(f"{grid.shape[:4]} models, {filled.sum()} filled")


SMALLEST_RATIO = 1e-3  # of line to continuous opacity, among the stars of `linelists.reach`


def build_lines(source: Path) -> None:
    """Write `lines.npz`: the list in the two windows, with generic ABO damping and each line's reach.

    Lines that never matter are left out.
    """
    from jaxspec.physics.linelists.abo import generic_abo
    from jaxspec.physics.linelists.reach import SMALLEST_REACH, strength_and_reach
    from jaxspec.physics.linelists.text import read_text
    from jaxspec.physics.linelists.turbospectrum import transitions, turbospectrum_rows
    from jaxspec.physics.lines import LineList

    rows = list(turbospectrum_rows(read_text(source)))
    known = transitions(rows)
    data = {
        "wavelength": known.wavelength,
        "species": known.z * 10 + known.stage,
        "energy": known.energy,
        "log_gf": np.array(
            [x.log_gf + np.log10(ISOTOPE_FRACTIONS.get((x.z, x.isotope), 1)) for x, _, _ in rows]
        ),
        "damping": generic_abo(known),
        "gamma_rad": np.array([x.gamma_rad for x, _, _ in rows]),
    }
    inside = np.zeros(len(data["wavelength"]), bool)
    for low, high in WINDOWS:
        inside |= (data["wavelength"] >= low) & (data["wavelength"] <= high)
    order = np.flatnonzero(inside)[np.argsort(data["wavelength"][inside], kind="stable")]
    data = {k: v[order] for k, v in data.items()}
    types = {"wavelength": np.float64, "species": np.int16}
    data = {k: v.astype(types.get(k, np.float32)) for k, v in data.items()}
    lines = LineList(
        data["wavelength"], data["species"] // 10 - 1, data["species"] % 10, data["energy"], data["log_gf"],
        data["damping"], data["gamma_rad"], np.zeros(len(order), np.float32),
    )  # fmt: skip
    ratio, reach = strength_and_reach(lines, nodes=(5470.0, 8730.0))
    data["reach"] = np.maximum(reach, SMALLEST_REACH).astype(np.float32)
    keep = ratio > SMALLEST_RATIO
    np.savez_compressed(HERE / "lines.npz", **{k: v[keep] for k, v in data.items()})
    print(f"{len(order)} lines in the windows, {keep.sum()} kept")


if __name__ == "__main__":
    builders: dict[str, Callable[..., None]] = {
        "atoms": build_atoms, "abo": build_abo, "bound_free": build_bound_free, "atlas9": build_atlas9,
        "lines": build_lines,
    }  # fmt: skip
    builders[sys.argv[1]](*map(Path, sys.argv[2:]))
