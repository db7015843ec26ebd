"""Chemically distinct populations: to which group each star of a catalogue belongs, with probabilities.

Fits a method to the stars of a table of labels with errors (or of a posterior.nc), or applies a fitted model
to them. Writes `members.fits` (a row a star: most probable group, probability of each and its spread,
novelty), `model/` (to be applied to other stars with --model), `report.html` and `metrics.json`.
docs/populations.md says what each method does and how well.
"""

from __future__ import annotations

import io
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Column, QTable

from jaxspec.diagnostics.results import Picture, Table
from jaxspec.errors import InputError
from jaxspec.io import write_table
from jaxspec.populations import Members, Model, Stars, fit, load, save
from jaxspec.populations.attribution import MOST_LABELS, attribute
from jaxspec.populations.methods import check_method
from jaxspec.populations.mixture_model import MixtureModel
from jaxspec.populations.read import read_stars
from jaxspec.runs import atomically, begin, checksum, write_json

log = logging.getLogger(__name__)

INPUT, OUTPUT = "catalogue", "folder"
ATTRIBUTED = 500  # stars whose memberships are attributed to labels
UNLIKE = 0.999  # novelty from which on a star is said to be unlike all groups


@dataclass(frozen=True)
class Settings:
    """Which stars, and how they are grouped.

    Attributes:
        catalogue: table (CSV, ECSV, FITS) with a column for each label and e_<label> for its error, or the
            posterior.nc of an inference.
        labels: names with commas between them, such as fe_h,mg_fe,al_fe; none: all abundances with errors, or
            those of the model.
        method: mixture, two_process or hdbscan.
        groups: how many; none: as many as the method finds.
        model: folder of a fitted model, which is applied to the stars as it is.
        attribution: of method mixture, say which labels decide the memberships (for at most 500 stars).
        seed: of all random numbers.
        plots: draw figures into the report.
    """

    catalogue: str
    labels: str | tuple[str, ...] | None = None
    method: str = "mixture"
    groups: int | None = None
    model: str | None = None
    attribution: bool = True
    seed: int = 1
    plots: bool = True

    def __post_init__(self):
        check_method(self.method)


def run(settings: Settings, folder: Path) -> tuple[Members, Model]:
    """Read, fit or load, apply, write; returns the memberships and the model.

    Raises: InputError for a table that is not understood, and for stars that the method cannot be fitted to.
    """
    model = None if settings.model is None else load(model_folder(settings.model))
    labels = settings.labels
    if isinstance(labels, str):
        labels = tuple(name.strip() for name in labels.split(",") if name.strip())
    if labels is None and model is not None:
        labels = model.labels
    stars = read_stars(settings.catalogue, labels)
    begin(folder, settings, [settings.catalogue])
    begun = time.perf_counter()
    if model is None:
        source = {"catalogue": Path(settings.catalogue).name, "sha256": checksum(settings.catalogue)}
        model = fit(stars, settings.method, settings.groups, settings.seed)
        save(model, folder / "model", {**source, "stars": len(stars), "seed": settings.seed})
    members = model.members(stars)
    seconds = time.perf_counter() - begun
    write_table(folder / "members.fits", member_table(stars, members))
    metrics = summarise(stars, members, seconds)
    if settings.attribution and isinstance(model, MixtureModel) and 1 < len(model.labels) <= MOST_LABELS:
        rows = np.sort(np.random.default_rng(settings.seed).permutation(len(stars))[:ATTRIBUTED])
        importance = attribute(model, stars.rows(rows)).importance
        metrics["importance"] = [
            {"group": g + 1, **dict(zip(model.labels, map(float, row), strict=True))}
            for g, row in enumerate(importance)
        ]
    write_json(folder / "metrics.json", metrics)
    write_report(folder / "report.html", settings, stars, members, metrics)
    for row in metrics["groups"]:
        centre = ", ".join(f"{k} {v:.2f}" for k, v in row["median"].items() if v is not None)
        log.info("group %d: %.0f stars expected, median %s", row["group"], row["expected"], centre)
    log.info("%d stars in %.0f s; %s", len(stars), seconds, folder)
    return members, model


def model_folder(path: str) -> Path:
    """The folder of a model, or of a run that has one."""
    inner = Path(path) / "model"
    return inner if inner.is_dir() else Path(path)


def member_table(stars: Stars, members: Members) -> QTable:
    """One row a star: `source`, `group` (from 1, 0 for none), `p_1`, `e_p_1`, ..., `novelty`."""
    table = QTable()
    names = np.asarray(stars.names, f"U{max(1, *map(len, stars.names))}")
    table["source"] = Column(names, description="name of the star", meta={"ucd": "meta.id;meta.main"})
    text = "most probable group, 0: none"
    table["group"] = Column(members.group.astype(np.int32), description=text, meta={"ucd": "meta.code.class"})
    for g in range(members.probability.shape[1]):
        p, spread = members.probability[:, g], members.spread[:, g]
        text = f"probability of group {g + 1}"
        meta = {"ucd": "stat.probability"}
        table[f"p_{g + 1}"] = Column(p.astype(np.float32), description=text, meta=meta)
        text = f"spread of p_{g + 1} among repeated fits or draws"
        meta = {"ucd": "stat.stdev;stat.probability"}
        table[f"e_p_{g + 1}"] = Column(spread.astype(np.float32), description=text, meta=meta)
    text = "probability that a star of the fitted population is less unusual"
    novelty = members.novelty.astype(np.float32)
    table["novelty"] = Column(novelty, description=text, meta={"ucd": "stat.probability"})
    return table


def summarise(stars: Stars, members: Members, seconds: float) -> dict[str, Any]:
    """Numbers of a run: sizes and median labels of the groups, how sure memberships are."""
    rows = []
    for g in range(members.probability.shape[1]):
        mine = members.group == g + 1
        median = {
            name: float(np.nanmedian(x)) if np.isfinite(x).any() else None
            for name, x in zip(stars.labels, stars.values[mine].T, strict=True)
        }
        expected = float(members.probability[:, g].sum())
        rows.append({"group": g + 1, "stars": int(mine.sum()), "expected": expected, "median": median})
    return {
        "stars": len(stars),
        "seconds": seconds,
        "ungrouped": int((members.group == 0).sum()),
        "sure": float((members.probability.max(1) > 0.9).mean()),
        "unlike": int((members.novelty > UNLIKE).sum()),
        "missing": dict(zip(stars.labels, (~stars.measured).sum(0).tolist(), strict=True)),
        "groups": rows,
    }


def write_report(
    path: Path, settings: Settings, stars: Stars, members: Members, metrics: dict[str, Any]
) -> None:
    """`report.html`: the groups in a table, and who belongs where; without matplotlib only a line in the
    log."""
    try:
        from jaxspec.diagnostics.population_plots import plot_members
        from jaxspec.diagnostics.reporting import plain_page
    except ImportError as error:
        log.warning("no report: %s; pip install 'jaxspec[plots]'", error)
        return
    header = ("group", "stars", "expected", *(f"median {name}" for name in stars.labels))
    rows = [
        (
            str(row["group"]),
            str(row["stars"]),
            f"{row['expected']:.0f}",
            *("-" if value is None else f"{value:.2f}" for value in row["median"].values()),
        )
        for row in metrics["groups"]
    ]
    caption = "Stars whose most probable group this is; sum of probabilities; median labels of these stars."
    pictures = []
    if settings.plots:
        caption_2 = "Stars by their most probable group, fainter where it is less sure."
        figure = plot_members(stars.values, stars.labels, members.probability, seed=settings.seed)
        pictures.append(Picture("members", caption_2, png(figure)))
    text = (
        f"{len(stars)} stars in {len(rows)} groups. {metrics['sure']:.0%} of them belong to one with more "
        f"than 90 % probability; {metrics['ungrouped']} to none; {metrics['unlike']} are unlike all groups "
        f"(novelty above {UNLIKE:g})."
    )
    facts: dict[str, Any] = {"catalogue": settings.catalogue, "labels": ", ".join(stars.labels)}
    facts["method"] = settings.method
    facts |= {"model": settings.model or "fitted here", "seed": settings.seed}
    table = Table(caption, header, tuple(rows))
    sections: list[tuple[str, str, list[Table], list[Picture]]] = [("Groups", "", [table], pictures)]
    if "importance" in metrics:
        names = [name for name in metrics["importance"][0] if name != "group"]
        rows = [
            (f"group {row['group']}", *(f"{row[name]:.3f}" for name in names))
            for row in metrics["importance"]
        ]
        words = "Mean size of the effect of each label on the probability of each group (Shapley values)."
        sections.append(("Which labels decide", words, [Table("", ("", *names), tuple(rows))], []))
    page = plain_page("Populations", text, facts, sections)
    atomically(path, lambda partial: partial.write_text(page, encoding="utf-8"))


def png(figure: Any) -> bytes:
    """A figure as the bytes of a PNG."""
    from jaxspec.diagnostics.plots import save as save_figure

    buffer = io.BytesIO()
    save_figure(figure, buffer)
    return buffer.getvalue()


__all__ = ["INPUT", "OUTPUT", "InputError", "Settings", "run"]
