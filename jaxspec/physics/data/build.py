"""Rebuild the shipped physics tables from their published sources.

    python -m jaxspec.physics.data.build atoms   EXOJAX_WHEEL
    python -m jaxspec.physics.data.build atlas9  FRAUNHOFER_WHEEL
    python -m jaxspec.physics.data.build lines   GES_LINELIST_V6_TURBOSPECTRUM.gz

The wheels are `pip download --no-deps exojax Fraunhofer` (both MIT); only published tables are taken:

- `atoms.npz`: partition functions of Barklem & Collet (2016, A&A 588, A96), as polynomials in ln T fitted
  over 1500-10000 K, and ionisation energies of the NIST Atomic Spectra Database.
- `atlas9.npz`: ATLAS9 ODFNEW model atmospheres (Castelli & Kurucz 2003, IAU Symp. 210, A20; vturb 2 km/s,
  l/H 1.25) for 3500-7500 K, log g 0-5, [M/H] -2.5 to 0.5 and [alpha/M] 0 and 0.4.
- `lines.npz`: atomic lines of the Gaia-ESO list v6 (Heiter et al. 2021, A&A 645, A106) in both windows.
"""

import gzip
import re
import sys
import zipfile
from pathlib import Path

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
    60142: 0.272, 60143: 0.122, 60144: 0.238, 60145: 0.083, 60146: 0.172, 60148: 0.057, 60150: 0.056,
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


def _read_turbospectrum(source: Path) -> dict[str, np.ndarray]:
    """Every line of the file.

    wavelength (air, A), species (10 Z + ion charge), energy (eV), log_gf, damping, gamma_rad, orbitals.
    """
    rows = []
    for row in gzip.open(source, "rt"):
        if row.startswith("'"):
            fields = row.split("'")
            if re.fullmatch(r"\s*\d+\.\d{3}\s*", fields[1]):
                element, isotope = (int(x) for x in fields[1].split("."))
                stage = int(fields[2].split()[0])
            continue
        wavelength, energy, log_gf, damping, _, gamma_rad = (float(x) for x in row.split()[:6])
        if isotope:
            log_gf += np.log10(ISOTOPE_FRACTIONS.get(element * 1000 + isotope, 1.0))
        lower, upper = (re.findall(r"'(\w)'", row) + ["X", "X"])[:2]
        rows.append((wavelength, element * 10 + stage - 1, energy, log_gf, damping, gamma_rad, upper, lower))
    names = ("wavelength", "species", "energy", "log_gf", "damping", "gamma_rad", "upper", "lower")
    return {name: np.array(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}


# Effective quantum numbers within which the ABO theory is tabulated, for the level of lower and of higher
# orbital momentum (Anstee & O'Mara 1995; Barklem & O'Mara 1997).
ABO_RANGES = {"sp": ((1.0, 3.0), (1.3, 3.0)), "pd": ((1.3, 3.0), (2.3, 4.0))}


def _generic_abo(lines: dict[str, np.ndarray], ionisation: np.ndarray) -> np.ndarray:
    """Damping with ABO values for the neutral s-p and p-d lines that the list gives none for.

    ABO cross-sections depend only on the two effective quantum numbers. The list's own several thousand ABO
    lines are fitted by a quadratic in them (scatter 13 % for s-p, 5 % for p-d), which is then used inside the
    tabulated range.
    """
    damping = lines["damping"].copy()
    element, charge = lines["species"] // 10 - 1, lines["species"] % 10
    binding = ionisation[element, charge] - lines["energy"]
    upper_binding = binding - 12398.42 / lines["wavelength"]
    with np.errstate(invalid="ignore", divide="ignore"):
        n_lower, n_upper = np.sqrt(13.598 / binding), np.sqrt(13.598 / upper_binding)
    for pair, ((low1, high1), (low2, high2)) in ABO_RANGES.items():
        up = (lines["upper"] == pair[1]) & (lines["lower"] == pair[0])
        down = (lines["upper"] == pair[0]) & (lines["lower"] == pair[1])
        first, second = np.where(up, n_lower, n_upper), np.where(up, n_upper, n_lower)
        tabulated = (first >= low1) & (first <= high1) & (second >= low2) & (second <= high2)
        use = (up | down) & (charge == 0) & tabulated
        known = use & (damping > 20)
        design = np.stack([np.ones_like(first), first, second, first * second, first**2, second**2], axis=1)
        sigma, alpha = np.log(np.floor(damping[known])), damping[known] % 1
        weight = np.ones(known.sum())
        for _ in range(5):  # robust: levels that converge on an excited limit lie off
            fit = np.linalg.lstsq(design[known] * weight[:, None], sigma * weight, rcond=None)[0]
            weight = 1 / np.sqrt(1 + ((sigma - design[known] @ fit) / 0.1) ** 2)
        exponent = np.linalg.lstsq(design[known] * weight[:, None], alpha * weight, rcond=None)[0]
        fill = use & (damping <= 20)
        damping[fill] = np.round(np.exp(design[fill] @ fit)) + np.clip(design[fill] @ exponent, 0.15, 0.45)
        scatter = 1.4826 * np.median(abs(sigma - design[known] @ fit))
        print(f"{pair}: {known.sum()} ABO lines fitted, {fill.sum()} filled, scatter {scatter:.3f}")
    return damping


# Where a line may be strongest or widest in the label range; every [X/Fe] at +0.8.
EXTREME_STARS = [
    (teff, logg, fe_h)
    for teff, logg in ((4000, 0.5), (4000, 2), (4000, 5), (4500, 1.5), (4500, 4.8), (5000, 2.5), (5000, 4.6),
                       (5777, 4.4), (5777, 3), (6400, 4), (7000, 4.2), (7000, 3))
    for fe_h in (0.5, -1.0)
]  # fmt: skip
SMALLEST_RATIO = 1e-3  # of line to continuous opacity, anywhere between continuum optical depths 0.03 and 1.5
REACH_RATIO = 1e-3  # likewise, where a line's wing ends


def _strength_and_reach(lines) -> tuple[np.ndarray, np.ndarray]:
    """How strong and how wide each line gets among the extreme stars.

    Returns the largest ratio of line to continuous opacity, and the distance (A) where it is `REACH_RATIO`.
    """
    import jax
    import jax.numpy as jnp

    from jaxspec.physics import continuum_opacity, transfer
    from jaxspec.physics.atmosphere import AtmosphereGrid
    from jaxspec.physics.chemistry import AtomicData, abundances
    from jaxspec.physics.lines import line_strengths
    from jaxspec.physics.synthesis import chemistry_of
    from jaxspec.physics.voigt import voigt

    atoms, grid = AtomicData.load(), AtmosphereGrid.load()
    blue = jnp.asarray(lines.wavelength < 7000)[:, None]

    @jax.jit
    def one(teff, logg, fe_h):
        atmosphere = grid(teff, logg, fe_h)
        state = chemistry_of(
            atoms, atmosphere, abundances(fe_h, {z: fe_h + 0.8 for z in (12, 13, 14, 20, 22, 28)})
        )
        strengths = line_strengths(lines, atoms, atmosphere.temperature, state, jnp.float32(1.5))

        def continuum(wavelength):
            def layer(t, s):
                absorption = continuum_opacity.absorption(wavelength, t, s)
                return absorption + continuum_opacity.scattering(wavelength, s)

            total = jax.vmap(layer)(atmosphere.temperature, state)
            return total, jnp.cumsum(transfer.optical_depth(total / state.density, atmosphere.column_mass))

        (opacity1, depth1), (opacity2, depth2) = (continuum(jnp.float32(w)) for w in (5470.0, 8730.0))
        ratio = strengths.opacity / jnp.where(blue, opacity1, opacity2)
        depth = jnp.where(blue, depth1, depth2)
        central = ratio * voigt(strengths.damping, jnp.zeros_like(strengths.damping))
        wing = jnp.sqrt(ratio * strengths.damping / (np.sqrt(np.pi) * REACH_RATIO))
        core = jnp.sqrt(jnp.log(jnp.maximum(ratio / REACH_RATIO, 1.0)))
        distance = jnp.maximum(wing, core) * strengths.doppler * lines.wavelength.astype(np.float32)[:, None]
        seen = (depth > 0.03) & (depth < 1.5)
        wide = (depth > 1e-3) & (depth < 1.5)
        return jnp.max(jnp.where(seen, central, 0), axis=1), jnp.max(jnp.where(wide, distance, 0), axis=1)

    results = [one(*map(float, star)) for star in EXTREME_STARS]
    return np.max([r[0] for r in results], axis=0), np.max([r[1] for r in results], axis=0)


def build_lines(source: Path) -> None:
    """Write `lines.npz`: the list in the two windows, with generic ABO damping and each line's reach.

    Lines that never matter are left out.
    """
    from jaxspec.physics.lines import LineList

    data = _read_turbospectrum(source)
    data["damping"] = _generic_abo(data, np.load(HERE / "atoms.npz")["ionisation_energy"])
    inside = np.zeros(len(data["wavelength"]), bool)
    for low, high in WINDOWS:
        inside |= (data["wavelength"] >= low) & (data["wavelength"] <= high)
    order = np.flatnonzero(inside)[np.argsort(data["wavelength"][inside], kind="stable")]
    data = {k: v[order] for k, v in data.items() if k not in ("upper", "lower")}
    types = {"wavelength": np.float64, "species": np.int16}
    data = {k: v.astype(types.get(k, np.float32)) for k, v in data.items()}
    lines = LineList(
        data["wavelength"], data["species"] // 10 - 1, data["species"] % 10, data["energy"], data["log_gf"],
        data["damping"], data["gamma_rad"], np.zeros(len(order), np.float32),
    )  # fmt: skip
    ratio, reach = _strength_and_reach(lines)
    data["reach"] = np.maximum(reach, 0.25).astype(np.float32)
    keep = ratio > SMALLEST_RATIO
    np.savez_compressed(HERE / "lines.npz", **{k: v[keep] for k, v in data.items()})
    print(f"{len(order)} lines in the windows, {keep.sum()} kept")


if __name__ == "__main__":
    {"atoms": build_atoms, "atlas9": build_atlas9, "lines": build_lines}[sys.argv[1]](Path(sys.argv[2]))
