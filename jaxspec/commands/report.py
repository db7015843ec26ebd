"""A report of a run of `jaxspec infer` or `jaxspec agent`, in words whose every number is in its files.

Writes `report.md`, `report.html` and `summary.txt` into the run's folder. By template; or by a language model
(`--model NAME --base-url URL`), whose text is taken only if every number, unit, sign, star and comparison in
it is among the run's facts.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from jaxspec.agent.report import Report, collect, save, write_report
from jaxspec.commands.infer import show
from jaxspec.errors import InputError

INPUT, OUTPUT = "run", "folder"
MOST_FIGURES = 6


@dataclass(frozen=True)
class Settings:
    """Whose report.

    Attributes:
        run: folder of the run; the report is written there.
        model: of an OpenAI-compatible endpoint; none: by template.
        base_url: of that endpoint; none: that of the OpenAI client.
        timeout: seconds that the model may take.
    """

    run: str
    model: str | None = None
    base_url: str | None = None
    timeout: float = 120.0


def run(settings: Settings, folder: Path) -> Report:
    """Collect the facts, write, check, save.

    Raises: InputError for a folder that holds no run.
    """
    where = Path(settings.run)
    facts = collect(where)
    report = write_report(facts, _asker(settings) if settings.model else None, settings.model or "")
    figures = [
        (path.relative_to(where).as_posix(), f"{path.stem.replace('_', ' ')}: spectrum, model and residuals")
        for path in [*sorted(where.glob("spectrum_*.png")), *sorted(where.glob("stars/*/*.png"))][
            :MOST_FIGURES
        ]
    ]
    save(report, where, f"Report of {where.name}", figures)
    for objection in report.objections[:5]:
        show(f"the model's text was rejected: {objection.what} ({objection.where[:120]})")
    show(f"{report.summary}\n{where / 'report.html'}")
    return report


def _asker(settings: Settings):
    try:
        import openai
    except ImportError as error:
        raise InputError("model", "no openai", "the extra agent", 'pip install "jaxspec[agent]"') from error
    import os

    key = os.environ.get("OPENAI_API_KEY") or "none"
    client = openai.OpenAI(base_url=settings.base_url, api_key=key, timeout=settings.timeout, max_retries=1)

    def ask(prompt: str) -> str:
        messages = [{"role": "user", "content": prompt}]
        reply = client.chat.completions.create(model=settings.model, messages=messages)  # type: ignore[call-overload]
        return reply.choices[0].message.content or ""

    return ask
