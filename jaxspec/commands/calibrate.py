"""Several surveys on one scale: offsets with errors, calibrated catalogues, predictions of a survey.

docs/surveys.md says what the file of surveys holds and what is written. Raises no error for tables that
merely lack a label or overlap little: what is not identified is said, and the convention chosen for it. In
place of a file, `simulated` calibrates a simulated sky, and `spectra` skies whose offsets are planted in
simulated spectra.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from astropy.table import Column, QTable, Table

from jaxspec.catalogues import (
    Catalogue,
    Match,
    SurveysFile,
    crossmatch,
    label_names,
    parse_file,
    read_survey,
)
from jaxspec.commands.calibration_report import (
    ALL,
    check_truth,
    compare_held_out,
    draw,
    hold_out,
    print_held_out,
    print_offsets,
    print_truth,
)
from jaxspec.commands.calibration_spectra import recover
from jaxspec.errors import InputError
from jaxspec.io import write_table
from jaxspec.labels import LABELS, LabelSet, label_set
from jaxspec.physics.forward import SHIPPED
from jaxspec.runs import atomically, begin, named_key, write_json
from jaxspec.settings import build
from jaxspec.surveys.assemble import FLAG_TEXT, Assembled, StarFlag, Stars, assemble
from jaxspec.surveys.inference import FitConfig, fit
from jaxspec.surveys.model import SurveyConfig
from jaxspec.surveys.observations import Sky
from jaxspec.surveys.predict import Calibrated, calibrate_sky, predict_sky
from jaxspec.surveys.results import Calibration
from jaxspec.surveys.sampling import NutsConfig
from jaxspec.surveys.simulate import SimulationConfig, Truth, simulate_sky
from jaxspec.surveys.spectral_sky import SpectralConfig
from jaxspec.surveys.variational import SviConfig

log = logging.getLogger(__name__)


INPUT, OUTPUT = "surveys", "folder"
SIMULATED, SPECTRA = "simulated", "spectra"
# Rows are called outliers in the flags above this probability.
OUTLIER = 0.5


@dataclass(frozen=True)
class Settings:
    """Which surveys, and how they are calibrated.

    Attributes:
        surveys: a file that lists tables (docs/surveys.md), simulated or spectra.
        seed: of all random numbers.
        predict: a survey: what it would report for every star.
        folds: with predict, its common stars are kept from it in so many parts, one after the other, and
            predicted; 0: none.
        method: nuts (exact, minutes), laplace (seconds) or svi (minibatches, any number of stars); auto: by
            the number of stars.
        prior: population: noisy and missing labels lean on the survey's other stars; flat: they do not.
        model: fields of jaxspec.surveys.model.SurveyConfig that differ from its defaults, such as trend
            quadratic or reference bensby.
        draws: of the Gaussian approximations.
        nuts: of method nuts.
        svi: of method svi.
        plots: draw figures.
        simulated: of surveys simulated.
        spectra: of surveys spectra.
        checkpoint: of surveys spectra, folder of a trained posterior or of a training run; none: the weights
            in the package.
        forward: of surveys spectra, the forward model: an emulator (.npz) or the dotted name of a function of
            an instrument.
    """

    surveys: str
    seed: int = 1
    predict: str | None = None
    folds: int = 3
    method: str = "auto"
    prior: str = "population"
    model: Mapping[str, Any] = field(default_factory=dict)
    draws: int = 1000
    nuts: NutsConfig = field(default_factory=NutsConfig)
    svi: SviConfig = field(default_factory=SviConfig)
    plots: bool = True
    simulated: SimulationConfig = SimulationConfig()
    spectra: SpectralConfig = SpectralConfig()
    checkpoint: str | None = None
    forward: str = SHIPPED

    def __post_init__(self):
        build(SurveyConfig, self.model, "model.")  # wrong entries are refused before anything is read


@dataclass(frozen=True)
class Input:
    """The data that a run calibrates.

    Attributes:
        sky: the surveys' measurements.
        stars: names, positions and flags of its stars.
        notes: what was found while they were assembled.
        files: of the tables.
        catalogues, match: of tables, what was read and how its rows belong together.
        truth: of a simulated sky.
    """

    sky: Sky
    stars: Stars
    notes: tuple[str, ...]
    files: tuple[Path, ...] = ()
    catalogues: tuple[Catalogue, ...] = ()
    match: Match | None = None
    truth: Truth | None = None


def run(settings: Settings, folder: Path) -> tuple[Calibration, dict[str, Any]]:
    """Read, match, fit, calibrate, predict, write; returns the fit and the metrics. With `surveys=spectra`
    many skies are calibrated, and the fit is the last one's.

    Raises: InputError for a file that is not understood, and surveys that do not overlap.
    """
    if settings.surveys == SPECTRA:
        return recover(settings, folder, fit_sky)
    loaded = load(settings)
    files = [] if settings.surveys == SIMULATED else [expand(settings.surveys)]
    begin(folder, settings, list(dict.fromkeys([*files, *loaded.files])))
    if settings.predict is not None:
        loaded.sky.index(settings.predict)  # before the work is done, not after
    if loaded.match is not None:
        write_matches(folder / "matches.ecsv", loaded)
    result = fit_sky(settings, loaded.sky)
    for message in result.messages:
        log.warning("%s", message)
    offsets = result.offsets()
    # An empty cell would read as masked.
    offsets["label"] = np.where(offsets["label"] == "", ALL, offsets["label"])
    offsets.meta["units"] = "mean and sd are in the unit of their row; survey minus common scale"
    atomically(folder / "offsets.ecsv", lambda p: offsets.write(p, format="ascii.ecsv", overwrite=True))
    result.save(folder / "calibration.nc")
    print_offsets(offsets)
    calibrated = calibrate_sky(result, loaded.sky, settings.prior)
    flags = loaded.stars.flags | np.where(calibrated.outlier > OUTLIER, int(StarFlag.OUTLIER), 0)
    _write_stars(folder / "calibrated.fits", loaded, calibrated, flags, "on the common scale")
    metrics: dict[str, Any] = {
        "stars": loaded.sky.n_stars,
        "surveys": {s.name: {"rows": len(s), "anchor": s.anchor} for s in loaded.sky.surveys},
        "shared": shared(loaded.sky),
        "match": {} if loaded.match is None else loaded.match.counts(),
        "notes": {c.name: list(c.notes) for c in loaded.catalogues} | {"stars": list(loaded.notes)},
        "messages": list(result.messages),
        "diagnostics": vars(result.diagnostics),
        "outliers": int((calibrated.outlier > OUTLIER).sum()),
    }
    held = None
    if settings.predict is not None:
        predicted = predict_sky(result, loaded.sky, settings.predict, settings.prior)
        what = f"as {settings.predict} would report it"
        _write_stars(folder / "predicted.fits", loaded, predicted, flags, what)
        again = lambda sky: predict_sky(fit_sky(settings, sky), sky, settings.predict, settings.prior)  # noqa: E731
        held = hold_out(loaded.sky, settings.predict, settings.folds, settings.seed, again)
        if held is not None:
            metrics["held_out"] = compare_held_out(held, loaded.sky.label_set)
            print_held_out(metrics["held_out"])
    if loaded.truth is not None:
        metrics["truth"] = check_truth(result, calibrated, loaded.sky, loaded.truth)
        print_truth(metrics["truth"])
    if settings.plots:
        draw(folder, result, loaded.sky, calibrated, held)
    write_json(folder / "metrics.json", metrics)
    log.info(
        "%d stars of %d surveys in %.0f s of %s; %s",
        loaded.sky.n_stars,
        len(loaded.sky.surveys),
        result.diagnostics.seconds,
        result.diagnostics.method,
        folder,
    )
    return result, metrics


def fit_sky(settings: Settings, sky: Sky) -> Calibration:
    """The posterior of all surveys' terms, as configured."""
    config = FitConfig(settings.nuts, settings.svi, settings.draws)
    key = named_key(settings.seed, "calibrate")
    return fit(sky, build(SurveyConfig, settings.model), key, settings.method, config)


def shared(sky: Sky) -> dict[str, int]:
    """Number of stars that two surveys both have, by "a, b"."""
    stars = [np.unique(survey.star) for survey in sky.surveys]
    return {
        f"{sky.names[a]}, {sky.names[b]}": len(np.intersect1d(stars[a], stars[b]))
        for a in range(len(stars))
        for b in range(a + 1, len(stars))
    }


# --- reading


def load(settings: Settings) -> Input:
    """The data that `surveys=` names: a file of tables, or a simulated sky."""
    if settings.surveys == SIMULATED:
        return simulated(settings.seed, settings.simulated)
    return read_tables(load_surveys(settings.surveys))


def expand(path: str | Path) -> Path:
    """The path with the environment's values and the home folder in it."""
    return Path(os.path.expandvars(str(path))).expanduser()


def load_surveys(path: str | Path) -> SurveysFile:
    """The surveys file at `path`.

    Raises: InputError for one that is not there, or no YAML, or gives an entry twice.
    """
    path = expand(path)
    if not path.is_file():
        raise InputError(
            f"surveys={path}", "no such file", "a YAML file that lists tables", "see docs/surveys.md"
        )
    try:
        content = yaml.load(path.read_text(), _Loader)
    except (yaml.YAMLError, ValueError, OSError) as error:
        raise InputError(str(path), str(error).replace("\n", " ")[:200], "YAML", "correct the line") from None
    if not isinstance(content, Mapping | list):  # a word alone is an entry without a value
        content = {} if content is None else {str(content): None}
    return parse_file(content, path.parent, str(path))


class _Loader(yaml.SafeLoader):
    """YAML 1.1 that refuses an entry given twice, and takes 1e-3 for a number and a date for text."""

    def construct_mapping(self, node, deep=False):
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
        for name in names:
            if names.count(name) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"{name} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in rules if not tag.endswith((":timestamp", ":float"))]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"[-+]?(\d[\d_]*\.[\d_]*([eE][-+]?\d+)?|\d[\d_]*[eE][-+]?\d+|\.\d[\d_]*([eE][-+]?\d+)?"
        r"|\.(inf|Inf|INF))$|\.(nan|NaN|NAN)$"
    ),
    list("-+0123456789."),
)


def read_tables(file: SurveysFile) -> Input:
    """Tables read, matched and assembled; what was found on the way is logged."""
    names = label_names(file.tables)
    if file.labels is not None:
        missing = [name for name in file.labels if name not in names]
        if missing:
            raise InputError(
                f"labels, {', '.join(missing)}", "in no table", f"some of {', '.join(names)}", "map columns"
            )
        names = list(file.labels)
    elif not names:
        raise InputError("tables", "no labels", "columns: {teff: Teff, ...}", "map labels to columns")
    labels = label_set(*(name for name in LABELS if name in names))
    catalogues = tuple(read_survey(table, labels, file.solar_scale) for table in file.tables)
    for catalogue in catalogues:
        measured = [
            n for n, there in zip(labels.names, np.isfinite(catalogue.labels).any(0), strict=True) if there
        ]
        log.info(
            "%s: %d rows, %s; abundances %s%s",
            catalogue.name,
            len(catalogue),
            ", ".join(measured) or "no labels",
            catalogue.solar,
            "; anchor" if catalogue.anchor else "",
        )
        for note in catalogue.notes:
            log.info("%s: %s", catalogue.name, note)
    match = crossmatch(catalogues, file.radius)
    zero = [
        np.array([table.zero_point_error.get(name, 0.0) for name in labels.names])
        if table.zero_point_error
        else None
        for table in file.tables
    ]
    made = assemble(
        catalogues, match, duplicates=[table.duplicates for table in file.tables], zero_point_error=zero
    )
    _say_match(catalogues, match, made)
    return Input(
        made.sky,
        made.stars,
        made.notes,
        tuple(table.file for table in file.tables),
        catalogues,
        match,
    )


def _say_match(catalogues: tuple[Catalogue, ...], match: Match, made: Assembled) -> None:
    common = match.common()
    for a in range(len(catalogues)):
        for b in range(a + 1, len(catalogues)):
            log.info("%s and %s share %d stars", catalogues[a].name, catalogues[b].name, common[a, b])
    for kind, count in sorted(match.counts().items()):
        examples = [f"{f.star} ({f.detail})" for f in match.findings if f.kind == kind][:3]
        log.log(
            logging.INFO if kind == "repeat" else logging.WARNING,
            "%d of kind %s in the match, such as %s",
            count,
            kind,
            "; ".join(examples),
        )
    for note in made.notes:
        log.info("%s", note)


def simulated(seed: int, config: SimulationConfig) -> Input:
    """A simulated sky, its stars named by number."""
    sky, truth = simulate_sky(seed, config)
    n = sky.n_stars
    seen = np.zeros(n, int)
    for survey in sky.surveys:
        seen += np.bincount(survey.star, minlength=n) > 0
    nothing = np.full(n, np.nan)
    names = np.array([f"star {i}" for i in range(n)], dtype=object)
    stars = Stars(names, {}, nothing, nothing, np.full(n, "", dtype=object), (seen <= 1).astype(np.int64))
    return Input(sky, stars, ("a simulated sky",), truth=truth)


# --- writing


def _write_stars(path: Path, loaded: Input, labels: Calibrated, flags: np.ndarray, what: str) -> None:
    table = star_table(loaded.stars, loaded.sky.label_set, labels.mean, labels.error, flags, what)
    write_table(path, table, meta=header(loaded))


def star_table(
    stars: Stars,
    labels: LabelSet,
    mean: np.ndarray,
    error: np.ndarray,
    flags: np.ndarray,
    what: str,
) -> QTable:
    """One row a star: `identifier`, `NAME` and `e_NAME` for each label `[n, l]`, `flags`, then identifiers by
    kind, position and cluster."""
    table = QTable()
    _text(table, "identifier", stars.identifier, "a designation of the star", "meta.id;meta.main")
    for j, label in enumerate(labels):
        text = f"{label.description}, {what}"
        _number(table, label.name, mean[:, j].astype(np.float32), text, label.ucd, label.unit)
        text = f"one-sigma error of {label.name}"
        _number(
            table,
            f"e_{label.name}",
            error[:, j].astype(np.float32),
            text,
            f"stat.error;{label.ucd}",
            label.unit,
        )
    _number(table, "flags", flags.astype(np.int64), "bits, 0 is safe; docs/surveys.md", "meta.code.qual")
    for kind, values in stars.keys.items():
        if kind in ("gaia", "gaia_dr2"):
            _number(
                table,
                kind,
                np.array([int(v or 0) for v in values], np.int64),
                "source_id, 0: none",
                "meta.id",
            )
        elif kind == "hip":
            number = [int(v.rstrip("ABCDEFGHIJKLMNOPQRSTUVWXYZ") or 0) for v in values]
            _number(table, kind, np.array(number, np.int64), "Hipparcos number, 0: none", "meta.id")
        else:
            _text(table, kind, values, f"{kind} designation", "meta.id")
    if np.isfinite(stars.ra).any():
        _number(table, "ra", stars.ra, "right ascension as in the first table", "pos.eq.ra", "deg")
        _number(table, "dec", stars.dec, "declination as in the first table", "pos.eq.dec", "deg")
    if (stars.cluster != "").any():
        _text(table, "cluster", stars.cluster, "open cluster", "meta.id.parent")
    return table


def _text(table: QTable, name: str, values: np.ndarray, description: str, ucd: str) -> None:
    width = max([len(v.encode("ascii", "replace")) for v in values] + [1])
    cells = np.array([str(v).encode("ascii", "replace").decode() for v in values], f"U{width}")
    table[name] = Column(cells, description=description, meta={"ucd": ucd})


def _number(table: QTable, name: str, values: np.ndarray, description: str, ucd: str, unit: str = "") -> None:
    table[name] = Column(values, unit=unit or None, description=description, meta={"ucd": ucd})


def write_matches(path: Path, loaded: Input) -> None:
    """Findings of the cross-match, one a row; rows count from 0, after `select`."""
    names = [catalogue.name for catalogue in loaded.catalogues]
    assert loaded.match is not None
    rows = [
        (f.kind, f.star, names[f.a[0]], f.a[1], names[f.b[0]], f.b[1], f.detail)
        for f in loaded.match.findings
    ]
    columns = ("kind", "star", "table_a", "row_a", "table_b", "row_b", "detail")
    kinds = ("U16", "U64", "U64", np.int64, "U64", np.int64, "U200")
    table = Table(rows=rows or None, names=columns, dtype=kinds)
    atomically(path, lambda partial: table.write(partial, format="ascii.ecsv", overwrite=True))


def header(loaded: Input) -> dict[str, Any]:
    """Origin of a table, as header cards."""
    cards = {f"FLAG_{int(flag)}": text for flag, text in FLAG_TEXT.items()}
    for i, catalogue in enumerate(loaded.catalogues):
        cards[f"NAME_{i}"] = catalogue.name
        cards[f"FILE_{i}"] = Path(catalogue.provenance["file"]).name
        cards[f"SHA_{i}"] = catalogue.provenance["sha256"]
        cards[f"SOLAR_{i}"] = catalogue.solar
    return cards
