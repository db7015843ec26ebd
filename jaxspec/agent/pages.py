"""A page for each star: what was seen, tried and concluded, with the pictures that convinced."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from jaxspec.agent.hypotheses import CAUSES
from jaxspec.runs import atomically

STYLE = """
body { font: 15px/1.45 Georgia, serif; color: #1b2838; max-width: 60em; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.4em; } table { border-collapse: collapse; margin: 1em 0; }
td, th { border-bottom: 1px solid #d5dbe1; padding: 0.25em 0.7em; text-align: left; vertical-align: top; }
code { font-size: 0.85em; } img { max-width: 100%; } .small { color: #66727f; font-size: 0.9em; }
"""


def write_page(
    path: Path,
    rows: Sequence[Mapping[str, Any]],
    names: Sequence[str],
    units: Sequence[str],
    flags: str,
    pictures: Sequence[str],
) -> Path:
    """Write the page of one star from its trace. `names` and `units` are those of the labels, `pictures`
    files beside the page."""
    end = rows[-1]
    title = f"{end['star']}: {end['cause']}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{escape(CAUSES.get(end['cause'], ''))}. Probability among what was compared: "
        f"{end['p_cause']:.3g}. {escape(end['reason'])}</p>",
        f'<p class="small">Status: {escape(end["end"])}. {end["n_steps"]} steps, {end["n_fits"]} fits. '
        f"Labels from: {escape(end['labels_from'])}. Flags: {escape(flags)}.</p>",
        "<table><tr><th>label</th><th>value</th><th>error</th><th>unit</th></tr>",
    ]
    for name, unit, value, error in zip(names, units, end["labels"], end["errors"], strict=True):
        digits = 0 if unit == "K" else 3
        parts.append(
            f"<tr><td>{escape(name)}</td><td>{value:.{digits}f}</td><td>{error:.{digits}f}</td>"
            f"<td>{escape(unit)}</td></tr>"
        )
    parts.append("</table>")
    parts += [f'<p><img src="{escape(name)}" alt="{escape(name)}"></p>' for name in pictures]
    parts.append(
        "<h2>Steps</h2><table><tr><th></th><th>tool</th><th>suspected</th><th>why</th><th>seen</th></tr>"
    )
    for row in rows[:-1]:
        arguments = json.dumps(row["arguments"]) if row["arguments"] else ""
        parts.append(
            f"<tr><td>{row['step']}</td><td><code>{escape(row['tool'])} {escape(arguments)}</code></td>"
            f"<td>{escape(row['hypothesis'])}</td><td>{escape(row['reason'])}</td>"
            f"<td><code>{escape(brief(row['observation']))}</code></td></tr>"
        )
    parts.append("</table>")
    text = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )
    return atomically(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def brief(observation: Mapping[str, Any], length: int = 400) -> str:
    """An observation in one line."""
    text = json.dumps(observation, ensure_ascii=False)
    return text if len(text) <= length else text[: length - 1] + "…"
