"""Posteriors of the labels of observed spectra.

    python -m experiments.infer spectra="night1/*.fits" output=night1_labels
    python -m experiments.infer spectra=star.fits checkpoint=outputs/train/2026-11-22_10-00-00
    python -m experiments.infer spectra=star.fits checkpoint=[run1,run2,run3]    several networks as one
    python -m experiments.infer spectra=star.fits checkpoint=run1 dropout=16     parts of one as several

Writes `labels.fits` (one row a spectrum), `posterior.nc` (draws, ArviZ's schema), `metrics.json` (what was
refused and assumed), spectrum and corner plots. Seconds for a few files, after some twenty seconds of
compilation. A file that cannot be used is refused by name and the others go on; the exit status is 1 only
when none could be used.
"""

import csv
import dataclasses
import fnmatch
import logging
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from omegaconf import DictConfig, OmegaConf

from experiments.common import ROOT, begin, build, launch
from experiments.data import STORES, open_store
from jaxspec.amortised.amortised import AmortisedPosterior
from jaxspec.amortised.ensemble import Ensemble, load_ensemble
from jaxspec.amortised.reweighting import sample_under
from jaxspec.diagnostics import plots
from jaxspec.errors import InputError
from jaxspec.fitting.check import Fit, FitConfig, check_posterior
from jaxspec.fitting.importance import ImportanceConfig, importance_sample
from jaxspec.fitting.likelihood import LikelihoodConfig
from jaxspec.fitting.refine import RefineConfig, refine_posterior
from jaxspec.instruments import Instrument
from jaxspec.io import Assume, Template, find_files, read_spectra, read_spectrum, write_datatree, write_table
from jaxspec.io.sharpness import judge_resolving_power
from jaxspec.labels import LabelSet
from jaxspec.physics import turbulence
from jaxspec.physics.forward import Nuisances, forward_model
from jaxspec.posterior import flags
from jaxspec.posterior.results import Posterior
from jaxspec.runs import named_key, write_json
from jaxspec.simulation.nuisances import PURE
from jaxspec.simulation.prior import StellarPrior
from jaxspec.simulation.simulator import SpectrumModel
from jaxspec.spectra import Spectra

log = logging.getLogger(__name__)

# Stars to measure velocities against: teff, logg, [Fe/H] with solar ratios (plus 0.3 dex of alpha below -1).
TEMPLATES = (
    (5772, 4.44, 0.0),
    (6500, 4.2, -0.1),
    (4800, 2.6, -0.1),
    (4600, 4.6, 0.0),
    (5800, 4.0, -2.0),
    (4700, 1.8, -2.0),
)


def run(cfg: DictConfig, folder: Path) -> tuple[Posterior, dict[str, Any]]:
    """Read, infer, check, write."""
    posterior, checkpoints = load_ensemble(cfg.checkpoint, cfg.dropout, cfg.seed)
    begin(cfg, folder, [*checkpoints, *input_files(cfg.spectra)])
    forward = forward_model(cfg.forward, posterior.instrument)
    spectra, refused = read(cfg, posterior.instrument, forward)
    return infer_and_write(cfg, folder, posterior, forward, spectra, refused)


def infer_and_write(
    cfg: DictConfig,
    folder: Path,
    posterior: AmortisedPosterior | Ensemble,
    forward: SpectrumModel,
    spectra: Spectra,
    refused: list[InputError],
    truth: np.ndarray | None = None,
    prefix: str = "",
) -> tuple[Posterior, dict[str, Any]]:
    """Draws, the check against the forward model, files, plots and the printed table. `truth [n, l]` are the
    labels of simulated stars; values from the literature are looked up by file name."""
    begun = time.perf_counter()
    result, fit, flux, ivar = infer(
        posterior,
        forward,
        spectra,
        named_key(cfg.seed, "inference"),
        cfg.n_draws,
        cfg.fit,
        cfg.get("refine", False),
        None if cfg.get("prior") is None else build(StellarPrior, cfg.prior),
    )
    seconds = time.perf_counter() - begun
    known, known_name = truth, "truth"
    if truth is None:
        known, known_name = literature(cfg.literature, spectra, posterior.label_set), "literature"
    print_table(result, known, known_name)

    header = {"REFUSED": len(refused), "PHYSICS": forward.approximation}
    write_table(folder / f"{prefix}labels.fits", result.to_table(), meta=header)
    observed = None
    if len(result) <= cfg.observed_max:
        dims = ("star", "wavelength")
        wavelength = (("wavelength",), posterior.instrument.wavelength)
        observed = {
            "wavelength": wavelength,
            "flux": (dims, flux),
            "ivar": (dims, ivar),
            "model": (dims, fit.model),
        }
    tree = result.to_datatree(observed)
    tree.attrs["approximation"] = forward.approximation
    write_datatree(folder / f"{prefix}posterior.nc", tree)
    draw(cfg, folder, result, fit, forward, flux, ivar, known, known_name, prefix)

    metrics = {
        "n_spectra": len(result),
        "refused": [
            {"where": e.where, "found": e.found, "expected": e.expected, "fix": e.fix} for e in refused
        ],
        "seconds": seconds,
        "approximation": forward.approximation,
        "spectra": [
            {"source": name, "flags": flags.names(int(flag)), "snr": snr, "chi2": chi2, **_facts(meta)}
            for name, flag, snr, chi2, meta in zip(
                result.names,
                result.flags,
                result.snr,
                result.chi2,
                spectra.meta or [{}] * len(result),
                strict=True,
            )
        ],
        known_name: compare(result, known),
    }
    write_json(folder / f"{prefix}metrics.json", metrics)
    for error in refused:
        print(f"refused: {error}")
    log.info("%d spectra in %.1f s, %d files refused; %s", len(result), seconds, len(refused), folder)
    return result, metrics


# --- reading


def input_files(spectra: Any) -> list[Path]:
    """The files that `spectra` stands for."""
    return find_files(list(spectra) if OmegaConf.is_config(spectra) else spectra)


def read(cfg: DictConfig, instrument: Instrument, forward: SpectrumModel) -> tuple[Spectra, list[InputError]]:
    """Spectra at rest on the instrument's pixels, and the errors of the files that were refused."""
    files, reader = input_files(cfg.spectra), cfg.reader
    if len(files) == 1 and files[0].suffix in STORES:
        with open_store(files[0], instrument) as store:
            flux, ivar = store.read(np.arange(len(store)))
            return Spectra.create(flux, ivar, instrument.wavelength, names=store.names), []
    template = make_template(forward)
    assume = Assume(
        medium=reader.medium, unit=reader.unit, estimate_noise=reader.snr is None, origin="conf/reader.yaml"
    )
    given = dict(frame=reader.frame, snr=reader.snr)
    resolving_power = reader.resolving_power
    if resolving_power is None:
        resolving_power = judge_all(files, instrument, template, assume, given)
    velocity = "measure" if reader.measure_velocity else reader.velocity
    return read_spectra(
        files,
        instrument,
        template=template,
        velocity=velocity,
        resolving_power=resolving_power,
        assume=assume,
        snr_max=reader.snr_max,
        combine=reader.combine,
        **given,
    )


def make_template(forward: SpectrumModel) -> Template:
    """The model's own spectra of typical stars, for radial velocities and line widths."""
    labels = []
    for teff, logg, fe_h in TEMPLATES:
        alpha = 0.3 if fe_h < -1.0 else 0.0
        enhanced = {"mg_h": alpha, "ca_h": alpha, "ti_h": alpha, "si_h": alpha}
        values = {"teff": teff, "logg": logg}
        labels.append([values.get(name, fe_h + enhanced.get(name, 0.0)) for name in forward.label_set.names])
    labels = jnp.asarray(labels, jnp.float32)
    stellar = labels[:, 0], labels[:, 1], labels[:, 2]
    one = jnp.ones(len(labels))
    nuisances = Nuisances(
        turbulence.vmic_calibration(*stellar),
        turbulence.vmac_calibration(*stellar),
        2.0 * one,
        0.0 * one,
        one,
    )
    flux = jax.jit(jax.vmap(forward))(labels, nuisances)
    return Template(forward.instrument.wavelength, np.asarray(flux, np.float64))


def judge_all(
    files: list[Path], instrument: Instrument, template: Template, assume: Assume, given: dict
) -> dict[str, float]:
    """Resolving power by file name, of files that do not state it and are clearly sharper than the
    instrument."""
    found = {}
    for path in files:
        try:
            with _quiet():
                file = read_spectrum(path, assume=dataclasses.replace(assume, frame="unknown"), **given)
                if file.resolving_power is not None or file.native is not None:
                    continue
                power = judge_resolving_power(file, instrument, template)
        except InputError:
            continue  # refused by name when it is read for good
        if power is not None:
            found[file.name] = power
            log.warning(
                "%s: states no resolving power; R = %.0f judged from the width of its lines", path, power
            )
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the reader's log: the files are read again, aloud."""
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


# --- inference


def infer(
    posterior: AmortisedPosterior | Ensemble,
    forward: SpectrumModel,
    spectra: Spectra,
    key,
    n_draws: int,
    fit: Any = None,
    refine: bool | str = False,
    prior: StellarPrior | None = None,
) -> tuple[Posterior, Fit, np.ndarray, np.ndarray]:
    """Draws for all spectra, on demand under another prior and refined against the forward model, with the
    outcome of the check, and the normalised flux and ivar `[n, p]` that the network and the check see."""
    flux, ivar = posterior.prepare(spectra)
    config = build(FitConfig, fit)
    result, outcome = infer_normalised(
        posterior, forward, flux, ivar, key, n_draws, config, refine, spectra.names, prior
    )
    velocity = (
        [meta.get("velocity", np.nan) for meta in spectra.meta]
        if spectra.meta
        else np.full(len(result), np.nan)
    )
    return (
        dataclasses.replace(result, stats={**result.stats, "velocity": np.asarray(velocity)}),
        outcome,
        flux,
        ivar,
    )


def infer_normalised(
    posterior: AmortisedPosterior | Ensemble,
    forward: SpectrumModel,
    flux,
    ivar,
    key,
    n_draws: int,
    config: FitConfig,
    refine: bool | str,
    names: tuple[str, ...] | None = None,
    prior: StellarPrior | None = None,
) -> tuple[Posterior, Fit]:
    """The same of normalised spectra `[n, p]`."""
    if refine not in (False, True, "exact"):
        raise InputError("refine", repr(refine), "false, true or exact", "choose one")
    result = sample_under(prior, posterior, key, flux, ivar, n_draws, names)
    arguments = (jax.random.fold_in(key, 1), forward, result, flux, ivar)
    if refine == "exact":
        # Of the resolving power as little is known as in the check.
        nuisances = dataclasses.replace(
            PURE, resolution_mean=config.resolution_mean, resolution_scatter=config.resolution_prior
        )
        refined = importance_sample(*arguments, ImportanceConfig(LikelihoodConfig(nuisances)))
        result = posterior.flag_range(refined)
    elif refine:
        result = posterior.flag_range(refine_posterior(*arguments, RefineConfig(fit=config)))
    return check_posterior(forward, result, flux, ivar, config, limits=posterior.limits)


# --- known values


def literature(path: str | None, spectra: Spectra, label_set: LabelSet) -> np.ndarray | None:
    """Published labels `[n, l]` (NaN where not known) of stars recognised by file or star name, or None."""
    if path is None:
        return None
    where = Path(path) if Path(path).exists() else ROOT / path
    if not where.exists():
        raise InputError(
            str(path), "no such file", "a CSV table of known labels", "give literature=FILE or null"
        )
    with where.open() as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    known = np.full((spectra.n_stars, len(label_set)), np.nan)
    for i, name in enumerate(spectra.names):
        star = str(spectra.meta[i].get("star", "")) if spectra.meta else ""
        keys = [re.sub(r"[^a-z0-9]+", "_", text.lower()) for text in (Path(name).stem, star)]
        for row in rows:
            if any(fnmatch.fnmatch(key, pattern) for key in keys for pattern in row["pattern"].split()):
                known[i] = [float(row.get(label) or "nan") for label in label_set.names]
                break
    return known if np.isfinite(known).any() else None


def compare(result: Posterior, known: np.ndarray | None) -> dict[str, Any] | None:
    """Median and largest absolute difference from known labels, for each label."""
    if known is None:
        return None
    out = {}
    for j, name in enumerate(result.label_set.names):
        rows = np.isfinite(known[:, j])
        if rows.any():
            offset = (result.median - known)[rows, j]
            out[name] = {
                "n": int(rows.sum()),
                "bias": float(np.median(offset)),
                "median_absolute": float(np.median(np.abs(offset))),
                "largest": float(np.abs(offset).max()),
            }
    return out


def print_table(result: Posterior, known: np.ndarray | None, known_name: str) -> None:
    """One line a spectrum: medians with errors; below it, known values."""
    width = max([len(name) for name in result.names] + [8])
    print(
        "\n"
        + f"{'source':<{width}} "
        + "".join(f"{name:>14}" for name in result.label_set.names)
        + f"{'snr':>6}{'chi2':>7}  flags"
    )
    median, error = result.median, result.error
    for i, name in enumerate(result.names):
        cells = [
            f"{m:.0f} +- {e:.0f}" if label.unit == "K" else f"{m:.2f} +- {e:.2f}"
            for label, m, e in zip(result.label_set, median[i], error[i], strict=True)
        ]
        print(
            f"{name:<{width}} "
            + "".join(f"{c:>14}" for c in cells)
            + f"{result.snr[i]:>6.0f}{result.chi2[i]:>7.2f}  {flags.names(int(result.flags[i]))}"
        )
        if known is not None and np.isfinite(known[i]).any():
            cells = [
                "" if not np.isfinite(v) else f"{v:.0f}      " if label.unit == "K" else f"{v:.2f}        "
                for label, v in zip(result.label_set, known[i], strict=True)
            ]
            print(f"{'  ' + known_name:<{width}} " + "".join(f"{c:>14}" for c in cells))
    print(flush=True)


def _facts(meta: dict[str, Any]) -> dict[str, Any]:
    """What a reader of the results may want to know of how a file was read."""
    keys = (
        "path",
        "product",
        "star",
        "frame",
        "velocity",
        "velocity_error",
        "velocity_origin",
        "resolution",
        "assumed",
        "notes",
    )
    return {key: meta[key] for key in keys if key in meta}


# --- plots


def draw(
    cfg, folder: Path, result: Posterior, fit: Fit, forward, flux, ivar, known, known_name: str, prefix: str
) -> None:
    """Spectrum with posterior predictive of every star, corner plots of the first few, up to the configured
    numbers."""
    for i in range(min(len(result), cfg.plots.spectra)):
        model, band = predictive(forward, result, fit, i)
        facts = f"S/N {result.snr[i]:.0f}   chi2 {result.chi2[i]:.2f}   {flags.names(int(result.flags[i]))}"
        title = f"{result.names[i]}   {facts}"
        figure = plots.plot_spectrum(flux[i], ivar[i], forward.instrument, model, band, title)
        plots.save(figure, folder / f"{prefix}spectrum_{_safe(result.names[i])}.png")
    for i in range(min(len(result), cfg.plots.corners)):
        truth = None if known is None else known[i]
        figure = plots.plot_corner(
            result.draws[:, i], result.label_set, truth, str(result.names[i]), known_name
        )
        plots.save(figure, folder / f"{prefix}corner_{_safe(result.names[i])}.png", dpi=110)


def predictive(forward, result: Posterior, fit: Fit, star: int, n: int = 64):
    """Median model of a star with its fitted continuum, and the central 95 % of the models of its draws."""
    nuisances = jax.tree.map(lambda x: jnp.asarray(x[star]), fit.nuisances)
    rows = np.linspace(0, len(result.draws) - 1, n).astype(int)
    labels = np.concatenate([result.median[star : star + 1], result.draws[rows, star]]).astype(np.float32)
    models = np.asarray(_models(forward, labels, nuisances))
    continuum = fit.model[star] / models[0]
    low, high = np.quantile(models[1:], [0.025, 0.975], axis=0)
    return fit.model[star], (low * continuum, high * continuum)


@eqx.filter_jit
def _models(forward, labels, nuisances):
    return jax.lax.map(lambda star: forward(star, nuisances), labels)


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._+-]+", "_", Path(name).name)


if __name__ == "__main__":
    launch(run, "infer")
