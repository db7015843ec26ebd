"""One page that says how good posteriors are: every evaluator on every set of stars, in one HTML file that
needs nothing beside itself.

Needs the `plots` extra (matplotlib).
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

from jaxspec.diagnostics.evaluators import EVALUATORS
from jaxspec.diagnostics.plots import DPI
from jaxspec.diagnostics.results import KnownStars, Picture, Result, Table
from jaxspec.errors import InputError
from jaxspec.runs import atomically

BAD = ' class="bad"'
WORDS = {True: ("good", "✓ pass"), False: ("bad", "✗ fail"), None: ("soft", "–")}


def report(
    path: str | os.PathLike,
    sets: Sequence[KnownStars],
    facts: Mapping[str, Any] | None = None,
    title: str = "Is it calibrated?",
) -> dict[str, list[Result]]:
    """Run all evaluators on all sets, write the page, and return what was found.

    Args:
        path: of the HTML file; it appears whole or not at all.
        sets: stars whose labels are known, each set with a name of its own.
        facts: what was evaluated (weights, checksum, versions, seed, command), shown as it is; a mapping is
            shown as a list.

    Returns: for the name of each set the results of all evaluators.

    Raises: InputError when there is no set, or two have the same name.
    """
    names = [stars.name for stars in sets]
    if not names or len(set(names)) < len(names):
        raise InputError("report: sets", f"{names}", "one or more sets of different names", "name each set")
    found = {stars.name: [evaluate(stars) for evaluate in EVALUATORS] for stars in sets}
    sizes = {stars.name: stars.draws.shape[:2] for stars in sets}
    text = page(found, sizes, facts or {}, title)
    atomically(Path(path), lambda partial: partial.write_text(text, encoding="utf-8"))
    return found


def page(
    found: Mapping[str, Sequence[Result]],
    sizes: Mapping[str, tuple[int, int]],
    facts: Mapping[str, Any],
    title: str,
) -> str:
    """The page as text; `sizes` holds the numbers of draws and stars of each set."""
    judged = [result.passed for results in found.values() for result in results if result.passed is not None]
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    rows = {
        "sets": {name: f"{n} stars, {n_draws} draws each" for name, (n_draws, n) in sizes.items()},
        **facts,
        "written": now,
    }
    return "\n".join(
        [
            _head(title),
            f"<p>{sum(judged)} of {len(judged)} checks passed, on stars whose labels are known.</p>",
            _overview(found),
            '<p class="soft">A check that rests on a p-value fails at p ≤ 0.01 for all its labels or bins '
            "together: one exact posterior in a hundred fails it, and given enough stars any other does. How "
            "much it matters is said by the calibration error.</p>",
            "<h2>What was evaluated</h2>",
            _facts(rows),
            *(_set(name, results, sizes[name]) for name, results in found.items()),
            "</body></html>\n",
        ]
    )


def plain_page(
    title: str,
    text: str,
    facts: Mapping[str, Any],
    sections: Sequence[tuple[str, str, Sequence[Table], Sequence[Picture]]],
) -> str:
    """A page of its own kind in the same style: `text` and facts, then sections of a heading, a sentence,
    tables and pictures."""
    parts = [_head(title), f"<p>{escape(text)}</p>"]
    for heading, sentence, tables, pictures in sections:
        parts.append(f"<h2>{escape(heading)}</h2><p>{escape(sentence)}</p>")
        parts += [_table(table) for table in tables]
        parts += [_picture(picture, heading) for picture in pictures]
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    parts += ["<h2>How it was made</h2>", _facts({**facts, "written": now}), "</body></html>\n"]
    return "\n".join(parts)


def _head(title: str) -> str:
    """The page's beginning, down to its heading."""
    style = resources.files("jaxspec.diagnostics").joinpath("report.css").read_text(encoding="utf-8")
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            # The browser itself sees to it that nothing is loaded from elsewhere.
            '<meta http-equiv="Content-Security-Policy" '
            "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">",
            f"<title>{escape(title)}</title><style>{style}</style></head><body>",
            f"<h1>{escape(title)}</h1>",
        ]
    )


def _overview(found: Mapping[str, Sequence[Result]]) -> str:
    """Checks against sets."""
    head = "".join(f'<th scope="col"><a href="#{_id(name)}">{escape(name)}</a></th>' for name in found)
    rows = []
    for results in zip(*found.values(), strict=True):
        cells = "".join(
            f'<td class="{WORDS[r.passed][0]}"><a class="{WORDS[r.passed][0]}" href="#{_id(name, r.name)}">'
            f"{WORDS[r.passed][1]}</a></td>"
            if r.passed is not None
            else "<td>–</td>"
            for name, r in zip(found, results, strict=True)
        )
        if any(result.passed is not None for result in results):
            rows.append(f'<tr><th scope="row">{escape(results[0].title)}</th>{cells}</tr>')
    return (
        '<div class="scroll"><table class="verdicts"><thead><tr><th scope="col">check</th>'
        f"{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _set(name: str, results: Sequence[Result], size: tuple[int, int]) -> str:
    """All about one set."""
    verdicts = "".join(
        f'<tr><th scope="row"><a href="#{_id(name, r.name)}">{escape(r.title)}</a></th>'
        f'<td class="{WORDS[r.passed][0]}">{WORDS[r.passed][1]}</td>'
        f'<td class="words">{escape(r.verdict)}</td></tr>'
        for r in results
    )
    parts = [
        f'<h2 id="{_id(name)}">{escape(name)}</h2><p class="soft">{size[1]} stars, {size[0]} draws each</p>',
        f'<div class="scroll"><table class="verdicts found"><tbody>{verdicts}</tbody></table></div>',
    ]
    for result in results:
        parts.append(f'<h3 id="{_id(name, result.name)}">{escape(result.title)}</h3>')
        kind, word = WORDS[result.passed]
        mark = "" if result.passed is None else f'<span class="{kind}">{word}</span>: '
        text = result.verdict if mark else result.verdict[0].upper() + result.verdict[1:]
        parts.append(f"<p>{mark}{escape(text)}.</p>")
        parts += [_table(table) for table in result.tables]
        parts += [_picture(picture, f"{result.title}, {name}") for picture in result.pictures]
    return "\n".join(parts)


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in table.header)
    rows = []
    for i, (first, *rest) in enumerate(table.rows):
        cells = "".join(
            f"<td{BAD if (i, j) in table.flagged else ''}>{escape(text)}</td>"
            for j, text in enumerate(rest, start=1)
        )
        rows.append(f'<tr><th scope="row">{escape(first)}</th>{cells}</tr>')
    return (
        f'<p class="caption">{escape(table.caption)}</p><div class="scroll"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _picture(picture: Picture, alt: str) -> str:
    # Bytes 16 to 24 of a PNG are its width and height.
    width, height = (int.from_bytes(picture.png[i : i + 4], "big") * 96 // DPI for i in (16, 20))
    data = base64.b64encode(picture.png).decode("ascii")
    return (
        f'<figure><div class="scroll"><img width="{width}" height="{height}" alt="{escape(alt)}" '
        f'src="data:image/png;base64,{data}"></div><figcaption>{escape(picture.caption)}</figcaption></figure>'
    )


def _facts(facts: Mapping[str, Any]) -> str:
    rows = []
    for name, value in facts.items():
        if isinstance(value, Mapping):
            value = "; ".join(f"{key}: {item}" for key, item in value.items())
        rows.append(f"<dt>{escape(str(name))}</dt><dd>{escape(str(value))}</dd>")
    return f"<dl>{''.join(rows)}</dl>"


def _id(*names: str) -> str:
    """A fragment identifier; sets of different names may not share one."""
    return "-".join(re.sub(r"[^A-Za-z0-9]", lambda m: f"_{ord(m[0]):x}", name) for name in names)
