"""A report of a run in words whose every number is true.

Facts come from the run's own files. A template says them offline; a language model may say them better, and
its text is taken only if the checker finds all of it in the facts.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import QTable

from jaxspec.agent.facts import KEY, Checker, Fact, Objection
from jaxspec.errors import InputError
from jaxspec.io import read_table
from jaxspec.labels import LABELS
from jaxspec.posterior import flags
from jaxspec.runs import atomically

# Stars that the text speaks of one by one; the table has all.
SPOKEN = 12


@dataclass(frozen=True)
class Report:
    """The report of a run.

    Attributes:
        summary: one paragraph.
        text: methods and results, Markdown with keys.
        facts: all that it was checked against.
        origin: who wrote it: template, or a model's name.
        objections: what was wrong with a model's text that was rejected.
    """

    summary: str
    text: str
    facts: tuple[Fact, ...]
    origin: str
    objections: tuple[Objection, ...] = ()


def collect(folder: str | Path) -> tuple[Fact, ...]:
    """The facts of a run of `jaxspec infer` or `jaxspec agent`.

    Raises: InputError where there is no `labels.fits`.
    """
    folder = Path(folder)
    if not (folder / "labels.fits").exists():
        raise InputError(
            str(folder), "no labels.fits", "the folder of jaxspec infer or agent", "check the path"
        )
    table = read_table(folder / "labels.fits")
    metrics = _json(folder / "metrics.json")
    facts = [Fact("run.n", float(len(table)), "", "n_stars")]
    flagged = int(np.sum(np.asarray(table["flags"]) != 0))
    facts.append(Fact("run.flagged", float(flagged), "", "n_flagged"))
    facts.append(Fact("run.safe", float(len(table) - flagged), "", ""))
    if "refused" in metrics:
        facts.append(Fact("run.refused", float(len(metrics["refused"])), "", "n_refused"))
    if metrics.get("seconds") is not None:
        facts.append(Fact("run.seconds", float(metrics["seconds"]), "s", "seconds"))
    if metrics.get("approximation"):
        facts.append(Fact("run.physics", str(metrics["approximation"]), "", ""))
    snr = np.asarray(table["snr"], float)
    facts += [
        Fact(f"run.snr_{n}", float(f(snr)), "", "snr")
        for n, f in (("min", np.min), ("max", np.max), ("median", np.median))
    ]
    for i, row in enumerate(table, start=1):
        facts += _star(row, f"s{i}", table)
    if "cause" in table.colnames:
        counts = Counter(str(c).strip() for c in table["cause"])
        facts += [Fact(f"run.n_{slug(cause)}", float(n), "", "n_stars") for cause, n in counts.items()]
        facts += [Fact(f"run.cause_{slug(cause)}", cause, "", "cause") for cause in counts]
        facts.append(Fact("run.fits", float(np.sum(table["n_fits"])), "", "n_fits"))
    return tuple(facts)


def _star(row: Any, key: str, table: QTable) -> list[Fact]:
    name = str(row["source"]).strip()
    out = []
    for label in LABELS.values():
        if label.name in table.colnames:
            for column, short in ((label.name, label.name), (f"e_{label.name}", f"e_{label.name}")):
                value = float(getattr(row[column], "value", row[column]))
                digits = 0 if label.unit == "K" else 2
                out.append(Fact(f"{key}.{short}", round(value, digits + 2), label.unit, label.name, name))
    out.append(Fact(f"{key}.snr", float(row["snr"]), "", "snr", name))
    if np.isfinite(row["chi2"]):
        out.append(Fact(f"{key}.chi2", float(row["chi2"]), "", "chi2", name))
    out.append(Fact(f"{key}.flags", flags.names(int(row["flags"])), "", "flags", name))
    if "cause" in table.colnames:
        out.append(Fact(f"{key}.cause", str(row["cause"]).strip(), "", "cause", name))
        out.append(Fact(f"{key}.p_cause", float(row["p_cause"]), "", "p_cause", name))
        out.append(Fact(f"{key}.fits", float(row["n_fits"]), "", "n_fits", name))
    return out


def template(facts: Sequence[Fact]) -> tuple[str, str]:
    """Summary and text of a run by the template, with keys."""
    by = {fact.key: fact for fact in facts}

    def say(key: str) -> str:
        return said(by[key])

    summary = (
        f"Labels of {say('run.n')} spectra were inferred; {say('run.safe')} of the results carry no flag, "
        f"and {say('run.flagged')} were flagged. The signal-to-noise ratio per pixel runs from "
        f"{say('run.snr_min')} to {say('run.snr_max')}, with a median of {say('run.snr_median')}."
    )
    if "run.refused" in by and float(by["run.refused"].value):
        summary += f" Files refused: {say('run.refused')}."
    causes = [key for key in by if key.startswith("run.cause_")]
    if causes:
        named = [f"{say(key)} ({say(key.replace('run.cause_', 'run.n_'))})" for key in causes]
        summary += f" The agent concluded: {', '.join(named)}, with {say('run.fits')} fits in all."
    lines = ["## Methods", ""]
    physics = f" The forward model assumes {say('run.physics')}." if "run.physics" in by else ""
    lines.append(
        "A normalizing flow gave the posterior of the labels of each normalised spectrum; bright stars were "
        "refined against the forward model, whose best fit was then compared with the spectrum." + physics
    )
    if causes:
        lines.append(
            "An agent looked at each fit, compared physical hypotheses by their evidence on the same pixels, "
            "and took the labels from the best."
        )
    if "run.seconds" in by:
        lines.append(f"The computing time was {say('run.seconds')}.")
    lines += ["", "## Results", ""]
    stars = list(dict.fromkeys(fact.star for fact in facts if fact.star))
    keys = {star: next(f.key for f in facts if f.star == star).split(".")[0] for star in stars}
    for star in stars[:SPOKEN]:
        lines.append("- " + _of_star(star, keys[star], by))
    if len(stars) > SPOKEN:
        lines.append("- The table of labels holds the others.")
    lines += ["", "## How far to trust it", ""]
    lines.append(
        "Results without a flag passed the comparison with the forward model. Errors are half the central "
        "68 % interval of the posterior; they do not hold for flagged stars."
    )
    odd = [star for star in stars if by[f"{keys[star]}.flags"].value != "OK"]
    for star in odd[:SPOKEN]:
        lines.append(f"- {star} has the flags {say(f'{keys[star]}.flags')}.")
    return summary, "\n".join(lines) + "\n"


def _of_star(star: str, key: str, by: dict[str, Fact]) -> str:
    parts = []
    for name, words in (
        ("teff", "effective temperature"),
        ("logg", "surface gravity"),
        ("fe_h", "metallicity"),
    ):
        if f"{key}.{name}" in by:
            parts.append(f"{words} {said(by[f'{key}.{name}'])} ± {said(by[f'{key}.e_{name}'])}")
    text = f"{star}: {', '.join(parts)}; signal-to-noise ratio {said(by[f'{key}.snr'])}"
    if f"{key}.chi2" in by:
        text += f", reduced chi-square {said(by[f'{key}.chi2'])}"
    if f"{key}.cause" in by:
        text += f"; cause {said(by[f'{key}.cause'])}, probability {said(by[f'{key}.p_cause'])}"
    return text + "."


def said(fact: Fact) -> str:
    """A fact as text: the value rounded as its quantity is quoted, the unit, the key."""
    if isinstance(fact.value, str):
        return f"{fact.value} [{fact.key}]"
    digits = 0
    if fact.unit == "dex" or fact.quantity in ("chi2", "p_cause"):
        digits = 2
    elif fact.unit in ("km/s", "s"):
        digits = 1
    # Half a unit up or down is the same to a reader; the checker allows either.
    text = f"{fact.value:.{digits}f}"
    text = text.lstrip("-") if float(text) == 0.0 else text
    return f"{text}{' ' + fact.unit if fact.unit else ''} [{fact.key}]"


def write_report(facts: Sequence[Fact], ask: Callable[[str], str] | None = None, model: str = "") -> Report:
    """The report of facts: a model's words where they pass the checker, else the template's.

    Args:
        ask: a function that sends a prompt to a model and returns its text; none: offline.
        model: its name.
    """
    summary, text = template(facts)
    checker = Checker(facts)
    wrong = checker.check(f"{summary}\n{text}")
    if wrong:
        raise AssertionError(f"the template says what is no fact: {wrong[0]}")
    if ask is None:
        return Report(summary, text, tuple(facts), "template")
    try:
        written = ask(prompt(facts, summary, text))
    except Exception as error:
        objection = Objection(f"the endpoint failed ({type(error).__name__})", "")
        return Report(summary, text, tuple(facts), "template", (objection,))
    objections = checker.check(written)
    if objections or not KEY.search(written):
        objections = objections or [Objection("nothing in the text has a key", written[:200])]
        return Report(summary, text, tuple(facts), "template", tuple(objections))
    first, _, rest = written.strip().partition("\n\n")
    return Report(first, (rest or first).rstrip() + "\n", tuple(facts), model)


def prompt(facts: Sequence[Fact], summary: str, text: str) -> str:
    """The prompt for a language model."""
    rows = "\n".join(
        f"{f.key}: {f.value} {f.unit} ({f.quantity}{', ' + f.star if f.star else ''})" for f in facts
    )
    return (
        "Write a report of a run for astronomers in Markdown: first one paragraph of summary, then "
        "Methods and Results. Use only these facts. After every number and its unit write its key in square "
        "brackets, as in `5772 K [s1.teff]`; round as an astronomer would; name the star in each sentence "
        "about it; say causes and flags with their key. Compare (hotter than, higher than) only two facts "
        f"with their keys. Do not spell numbers as words.\n\nFacts:\n{rows}\n\n"
        f"An example of the style:\n{summary}\n\n{text}"
    )


def to_markdown(report: Report, title: str = "Report") -> str:
    """The report, with keys as links to the list of facts."""
    rows = [f"| {f.key} | {f.star or ''} | {f.quantity} | {f.value} | {f.unit} |" for f in report.facts]
    note = f"Written by: {report.origin}."
    if report.objections:
        note += f" A model's text was rejected: {report.objections[0].what}."
    return "\n".join(
        [f"# {title}", "", report.summary, "", report.text, note, "", "## Facts", ""]
        + ["| key | star | quantity | value | unit |", "|---|---|---|---|---|", *rows, ""]
    )


def to_html(report: Report, title: str = "Report", figures: Sequence[tuple[str, str]] = ()) -> str:
    """The report as a page: keys are footnotes that lead to the list of facts. `figures` are files beside the
    page with captions."""
    from jaxspec.agent.pages import STYLE

    def prose(text: str) -> str:
        return re.sub(
            KEY,
            lambda m: f'<sup><a href="#{m[1]}" title="{m[1]}">{m[1]}</a></sup>',
            escape(text, quote=False),
        )

    parts = [f"<h1>{escape(title)}</h1>", f"<p>{prose(report.summary)}</p>"]
    items: list[str] = []
    for line in [*report.text.splitlines(), ""]:
        if line.startswith("- "):
            items.append(f"<li>{prose(line[2:])}</li>")
            continue
        if items:
            parts.append(f"<ul>{''.join(items)}</ul>")
            items = []
        if line.startswith("#"):
            parts.append(f"<h2>{escape(line.lstrip('# '))}</h2>")
        elif line:
            parts.append(f"<p>{prose(line)}</p>")
    for name, caption in figures:
        parts.append(
            f'<figure><img src="{escape(name)}">'
            f'<figcaption class="small">{escape(caption)}</figcaption></figure>'
        )
    rows = "".join(
        f'<tr id="{f.key}"><td>{f.key}</td><td>{escape(f.star or "")}</td><td>{f.quantity}</td>'
        f"<td>{escape(str(f.value))}</td><td>{f.unit}</td></tr>"
        for f in report.facts
    )
    note = f"Written by: {escape(report.origin)}."
    if report.objections:
        note += f" A model's text was rejected: {escape(report.objections[0].what)}."
    parts.append(f'<p class="small">{note}</p>')
    parts.append(
        f"<details><summary>Facts</summary><table><tr><th>key</th><th>star</th><th>quantity</th><th>value</th><th>unit</th></tr>{rows}</table></details>"
    )
    style = STYLE + " sup a { font-size: 0.6em; color: #9aa5b1; text-decoration: none; } "
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{style}</style></head><body>{''.join(parts)}</body></html>\n"
    )


def save(report: Report, folder: Path, title: str, figures: Sequence[tuple[str, str]] = ()) -> None:
    """Write `report.md`, `report.html` and `summary.txt`."""
    plain_summary = KEY.sub("", report.summary).replace("  ", " ").replace(" .", ".").replace(" ,", ",")
    for name, text in (
        ("report.md", to_markdown(report, title)),
        ("report.html", to_html(report, title, figures)),
        ("summary.txt", plain_summary + "\n"),
    ):
        atomically(folder / name, partial(_write_text, text=text))


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def slug(text: str) -> str:
    """A word as a part of a key."""
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
