"""How well stars are grouped where the answer is known: every method and every comparator in one table.

`truth=mock` takes the mock Galaxy (discs, accreted dwarfs, clusters), `truth=bensby`, `harps` and `apogee`
published tables, judged by motions or by a published line. With `map=true` the mock's discs are scored
against error, number of stars and number of elements. Writes `table.ecsv`, `report.html` and `metrics.json`;
a killed run goes on where it stopped. Needs the extra `populations` (scikit-learn).
"""

from __future__ import annotations

import dataclasses
import logging
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table as AstroTable
from astropy.table import vstack

from jaxspec.commands.populations import png
from jaxspec.diagnostics.results import Picture, Table
from jaxspec.errors import InputError
from jaxspec.populations import METHODS, Members, fit
from jaxspec.populations.comparators import available, hdbscan_at_its_best
from jaxspec.populations.extras import scikit_learn
from jaxspec.populations.known import (
    ABUNDANCES,
    FILES,
    Known,
    mock_accreted,
    mock_clusters,
    mock_discs,
    published,
)
from jaxspec.populations.mock import MockConfig
from jaxspec.populations.scores import match_groups, score
from jaxspec.populations.siblings import alike, recovery
from jaxspec.runs import atomically, begin, resumable, write_json

log = logging.getLogger(__name__)

TRUTHS = ("mock", *FILES)
ERRORS, NUMBERS = (0.01, 0.02, 0.03, 0.05, 0.07, 0.1), (100, 250, 500, 1000, 2000)
ELEMENTS = (2, 3, 5, 7)
LARGE = 20_000  # stars from which on the comparators see a random part


@dataclass(frozen=True)
class Settings:
    """Which stars with known populations.

    Attributes:
        truth: mock, bensby, harps or apogee.
        catalogue: the published table; none: the one in $JAXSPEC_DATA.
        methods: by name; none: all.
        comparators: other people's methods too.
        clusters: of the mock, the blind recovery of clusters too.
        map: of the mock, scores against error, number of stars and number of elements too.
        mock: the mock's stars and errors.
        seed: of all random numbers.
        name: of the run.
    """

    truth: str = "mock"
    catalogue: str | None = None
    methods: tuple[str, ...] | None = None
    comparators: bool = True
    clusters: bool = True
    map: bool = False
    mock: MockConfig = field(default_factory=MockConfig)
    seed: int = 1
    name: str = "populations"

    def __post_init__(self):
        if self.truth not in TRUTHS:
            raise InputError("truth", repr(self.truth), f"one of {', '.join(TRUTHS)}", "write truth=mock")
        for name in self.methods or ():
            if name not in METHODS:
                raise InputError("methods", repr(name), f"some of {', '.join(METHODS)}", "correct the name")


def run(settings: Settings, folder: Path) -> AstroTable:
    """Fit everything, score it, write it; returns the table."""
    begin(folder, settings)
    if settings.truth == "mock":
        sets = [mock_discs(settings.seed, settings.mock), mock_accreted(settings.seed, settings.mock)]
    else:
        sets = [published(settings.truth, settings.catalogue)]
    rows, sections = [], []
    for known in sets:
        results = dict(_results(settings, known, folder))
        mine = [_row(known, name, members, seconds) for name, (members, seconds) in results.items()]
        if known.name.startswith(("Bensby", "HARPS")):
            mine.append(_row(known, "logistic, with labels", supervised(known, settings.seed), np.nan))
        table = vstack([AstroTable([row]) for row in mine])
        print(f"\n{known.name}: {len(known.stars)} stars; classes by {known.note}")
        table.pprint(max_lines=-1, max_width=-1)
        rows.append(table)
        sections.append(_section(known, table, results))
    metrics: dict[str, Any] = {}
    if settings.truth == "mock" and settings.clusters:
        metrics["clusters"] = clusters(settings)
        sections.append(_cluster_section(metrics["clusters"]))
    if settings.truth == "mock" and settings.map:
        metrics["map"] = score_map(settings, folder)
        sections.append(_map_section(metrics["map"]))
    whole = vstack(rows)
    atomically(folder / "table.ecsv", lambda p: whole.write(p, format="ascii.ecsv", overwrite=True))
    metrics["table"] = [{k: _plain(row[k]) for k in whole.colnames} for row in whole]
    write_json(folder / "metrics.json", metrics)
    _write_report(folder / "report.html", settings, sections)
    return whole


# --- fits


def _results(settings: Settings, known: Known, folder: Path) -> Iterator[tuple[str, tuple[Members, float]]]:
    """Memberships of all stars by every method, and the seconds that it took; kept in the run's folder."""
    jobs: dict[str, Callable[[], Members]] = {}
    for name in settings.methods or METHODS:
        jobs[name] = lambda name=name: _fitted(known, name, settings.seed)  # type: ignore[misc]
    if settings.comparators:
        for name, method in available().items():
            jobs[name] = lambda method=method: _compared(known, method, settings.seed)  # type: ignore[misc]
        if len(known.stars) <= LARGE:
            best = lambda: hdbscan_at_its_best(known.stars, known.truth, known.classes)[0]  # noqa: E731
            jobs["HDBSCAN at its best"] = best
    place = folder / "fits" / known.name.replace(" ", "_")
    for item in resumable(jobs, {"stars": known.stars.values, "seed": settings.seed}, place):

        def made(name: str = item.name) -> dict[str, Any]:
            begun = time.perf_counter()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # comparators warn of what is theirs
                members = jobs[name]()
            log.info("%s: %s in %.1f s", known.name, name, time.perf_counter() - begun)
            return {**members._asdict(), "seconds": time.perf_counter() - begun}

        stored = item.result(made)
        members = Members(stored["probability"], stored["spread"], stored["novelty"])
        yield item.name, (members, float(stored["seconds"]))


def _fitted(known: Known, method: str, seed: int) -> Members:
    return fit(known.stars, method, known.groups, seed).members(known.stars)


def _compared(known: Known, method: Callable[..., Members], seed: int) -> Members:
    """A comparator on all stars; of very many, on a random part, the others ungrouped and not judged."""
    if len(known.stars) <= LARGE:
        return method(known.stars, known.groups, seed)
    rows = np.random.default_rng(seed).choice(len(known.stars), LARGE, replace=False)
    part = method(known.stars.rows(rows), known.groups, seed)
    out = np.full((len(known.stars), part.probability.shape[1]), np.nan)
    out[rows] = part.probability
    return Members(out, np.zeros_like(out), np.full(len(out), np.nan))


def supervised(known: Known, seed: int) -> Members:
    """Logistic regression with the classes, cross-validated tenfold: what the labels can tell at all."""
    linear, selection = scikit_learn("linear_model"), scikit_learn("model_selection")
    rows = known.truth >= 0
    values = known.stars.values[rows]
    values = np.where(np.isnan(values), np.nanmedian(values, axis=0), values)
    values = (values - values.mean(0)) / values.std(0)
    folds = selection.StratifiedKFold(10, shuffle=True, random_state=seed)
    model = linear.LogisticRegression(max_iter=1000)
    p = selection.cross_val_predict(model, values, known.truth[rows], cv=folds, method="predict_proba")
    out = np.full((len(known.stars), p.shape[1]), 1.0 / p.shape[1])
    out[rows] = p
    return Members(out, np.zeros_like(out), np.zeros(len(out)))


# --- scores


def _row(known: Known, name: str, members: Members, seconds: float) -> dict[str, Any]:
    judged = np.isfinite(members.probability).all(1)
    some = Members(*(x[judged] for x in members))
    found = score(some, known.truth[judged], known.classes)
    row: dict[str, Any] = {"set": known.name, "method": name, "rand": found.rand, "mutual": found.mutual}
    row["calibration"] = found.calibration
    for one, s in found.classes.items():
        if len(known.classes) == 2 and one == known.classes[0]:
            continue  # the other class says the same
        row |= {f"purity {one}": s.purity, f"compl. {one}": s.completeness, f"prec. {one}": s.precision}
        row |= {f"ROC {one}": s.roc, f"pur.90 {one}": s.purity_at_90}
    row["seconds"] = seconds
    return {k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()}


def clusters(settings: Settings) -> dict[str, dict[str, float]]:
    """Blind recovery of the mock's clusters among field stars (`siblings.recovery`), for each method."""
    stars, truth = mock_clusters(settings.seed, settings.mock)
    out = recovery(stars, truth)
    share = alike(stars, truth, settings.seed)
    for name, found in out.items():
        found["field_pairs_alike"] = share
        print(f"clusters, {name}: " + ", ".join(f"{k} {v:.4g}" for k, v in found.items()))
    return out


def score_map(settings: Settings, folder: Path) -> dict[str, Any]:
    """Scores of `mixture` on the mock's discs against error, number of stars, and number of elements."""
    base = dataclasses.replace(settings.mock, thin=1400, thick=600)
    cases: dict[str, tuple[MockConfig, tuple[str, ...]]] = {}
    for error in ERRORS:
        cases[f"error_{error:g}"] = (dataclasses.replace(base, error=error), ABUNDANCES)
    for n in NUMBERS:
        part = dataclasses.replace(base, thin=round(0.7 * n), thick=round(0.3 * n))
        cases[f"stars_{n}"] = (part, ABUNDANCES)
    for m in ELEMENTS:
        cases[f"elements_{m}"] = (base, ABUNDANCES[:m])
    out: dict[str, Any] = {}
    for item in resumable(cases, {"seed": settings.seed, "mock": base}, folder / "fits" / "map"):
        config, labels = cases[item.name]

        def made(config=config, labels=labels) -> dict[str, Any]:
            known = mock_discs(settings.seed, config, labels)
            found = score(_fitted(known, "mixture", settings.seed), known.truth, known.classes)
            values = {"rand": found.rand, "calibration": found.calibration}
            for name, s in found.classes.items():
                values |= {f"purity_{name}": s.purity, f"completeness_{name}": s.completeness}
            return values

        out[item.name] = {k: float(v) for k, v in item.result(made).items()}
        log.info("%s: %s", item.name, ", ".join(f"{k} {v:.3f}" for k, v in out[item.name].items()))
    return out


# --- the page


def _section(known: Known, table: AstroTable, results: dict[str, tuple[Members, float]]) -> tuple:
    from jaxspec.diagnostics.population_plots import plot_members, plot_reliability

    header = table.colnames[1:]
    rows = [[str(row["method"]), *(f"{row[k]:g}" for k in header[1:])] for row in table]
    caption = (
        "rand, mutual: adjusted Rand index and adjusted mutual information; calibration: mean distance of "
        "share from probability; prec.: area under precision-recall; pur.90: purity at 90 % completeness."
    )
    first = next(iter(results.values()))[0]
    pictures = [
        Picture("members", "The first method of the table.", png(plot_members(
            known.stars.values, known.stars.labels, first.probability))),
    ]  # fmt: skip
    curves = {}
    for name, (members, _) in list(results.items())[:4]:
        judged = (known.truth >= 0) & np.isfinite(members.probability).all(1)
        p, truth = members.probability[judged], known.truth[judged]
        g = match_groups(p, truth, len(known.classes))[1]
        if g >= 0:
            curves[name] = (p[:, g], truth == 1)
    text = f"Of stars given a probability of {known.classes[1]}, the share that is."
    pictures.append(Picture("reliability", text, png(plot_reliability(curves))))
    sentence = f"{len(known.stars)} stars, {known.groups} groups asked for. Classes: {known.note}."
    return known.name, sentence, [Table(caption, header, rows)], pictures


def _cluster_section(found: dict[str, dict[str, float]]) -> tuple:
    keys = list(next(iter(found.values())))
    rows = [[name, *(f"{values[k]:g}" for k in keys)] for name, values in found.items()]
    text = "Clusters of the mock among field stars: recovered with purity and completeness of 50 % or more."
    return "Clusters", text, [Table("", ["method", *keys], rows)], []


def _map_section(found: dict[str, Any]) -> tuple:
    from jaxspec.diagnostics.population_plots import plot_map

    pictures = []
    for kind, label, log_scale in (
        ("error", "error of an abundance [dex]", True),
        ("stars", "number of stars", True),
        ("elements", "number of elements", False),
    ):
        cases = {k.split("_")[1]: v for k, v in found.items() if k.startswith(f"{kind}_")}
        x = [float(k) for k in cases]
        curves = {
            what: {one: [v[f"{what}_{one}"] for v in cases.values()] for one in ("thin", "thick")}
            for what in ("purity", "completeness")
        }
        curves["Rand index"] = {"thin": [v["rand"] for v in cases.values()]}
        pictures.append(Picture(kind, f"Against {label}.", png(plot_map(x, curves, label, log_scale))))
    keys = list(next(iter(found.values())))
    rows = [[name.replace("_", " "), *(f"{v[k]:.3f}" for k in keys)] for name, v in found.items()]
    text = "Method mixture on the mock's discs; what is not varied is 0.04 dex, 2000 stars, 7 elements."
    return "What can be told apart", text, [Table("", ["case", *keys], rows)], pictures


def _write_report(path: Path, settings: Settings, sections: list[tuple]) -> None:
    from jaxspec.diagnostics.reporting import plain_page

    facts = {"truth": settings.truth, "seed": settings.seed, "mock": dataclasses.asdict(settings.mock)}
    text = "Groups of stars by their abundances, found without knowing the classes, and judged by them."
    page = plain_page("Populations against truth", text, facts, sections)
    atomically(path, lambda partial: partial.write_text(page, encoding="utf-8"))


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
