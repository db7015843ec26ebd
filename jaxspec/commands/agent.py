"""Labels of observed spectra by an agent: it looks at each fit, finds what is wrong, mends it, and says why.

Writes `labels.fits` as `jaxspec infer` does, with `cause`, `p_cause`, `n_fits`, `n_steps` and `status`;
`trace.jsonl`, every step of every star; and under `stars` a page for each with the pictures that convinced.
`jaxspec agent replay FOLDER` goes through the trace again and says whether every number is the same. A run
that was killed goes on when it is given the same output.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from astropy.table import Column, QTable
from tqdm import tqdm

from jaxspec.agent.bench import AgentConfig, Bench
from jaxspec.agent.hypotheses import CAUSES, Star
from jaxspec.agent.loop import Budget, Difference, Worked, lines, replay, work
from jaxspec.agent.pages import write_page
from jaxspec.agent.planners import PLANNERS, Knowledge, Planner
from jaxspec.amortised.storage import load_weights
from jaxspec.commands.infer import file_names, show
from jaxspec.errors import InputError
from jaxspec.io import find_files, write_table
from jaxspec.labels import LabelSet
from jaxspec.physics.forward import forward_model
from jaxspec.posterior import flags
from jaxspec.posterior.model import PosteriorModel
from jaxspec.posterior.results import Posterior
from jaxspec.reading import ReaderConfig, read_for
from jaxspec.runs import atomically, begin, check_folder, plain, resumable
from jaxspec.settings import build
from jaxspec.spectra import Spectra

log = logging.getLogger(__name__)

INPUT, OUTPUT = "spectra", "folder"
REPLAY = "replay"
TRACE = "trace.jsonl"
PLANNER_NAMES = (*PLANNERS, "llm")


@dataclass(frozen=True)
class Settings:
    """How the agent works.

    Attributes:
        spectra: a file, a glob pattern, a folder, a list of them, or a store (.h5); or replay and the folder
            of an earlier run.
        planner: rules, a decision procedure that needs no network, or llm, a language model.
        base_url: of an OpenAI-compatible endpoint; none: that of the OpenAI client.
        model: its model.
        json_mode: ask the model for JSON instead of tool calls.
        knowledge: read what symptoms have meant before; a file, true for the one in the package, or false.
        agent: seed, draws, prior, errors of the model.
        budget: what a star may cost.
        checkpoint: folder of a trained posterior; none: the weights in the package.
        forward: the forward model: folder of an emulator, or dotted name of a function of an instrument.
        reader: what to take where a file says nothing.
    """

    spectra: str | tuple[str, ...]
    planner: str = "rules"
    base_url: str | None = None
    model: str | None = None
    json_mode: bool = False
    knowledge: str = "true"
    agent: AgentConfig = field(default_factory=AgentConfig)
    budget: Budget = field(default_factory=Budget)
    checkpoint: str | None = None
    forward: str = "jaxspec.physics.forward.load_forward_model"
    reader: ReaderConfig = ReaderConfig()

    def __post_init__(self):
        if self.planner not in PLANNER_NAMES:
            known = ", ".join(PLANNER_NAMES)
            raise InputError("planner", repr(self.planner), f"one of {known}", "write planner=rules")
        if self.planner == "llm" and not self.model:
            raise InputError("model", "nothing", "the name of the endpoint's model", "write --model NAME")


def run(settings: Settings, folder: Path) -> Any:
    """Work on every star and write; or replay. Returns the table, or the differences of a replay."""
    inputs = [settings.spectra] if isinstance(settings.spectra, str) else list(settings.spectra)
    if inputs and inputs[0] == REPLAY:
        if len(inputs) != 2:
            raise InputError(REPLAY, f"{len(inputs) - 1} folders", "one", "write jaxspec agent replay FOLDER")
        return replay_run(Path(inputs[1]))
    check_folder(folder)
    files = find_files(settings.spectra)
    posterior, checkpoint = load_weights(settings.checkpoint)
    star = Star(forward_model(settings.forward, posterior.instrument))
    spectra, refused = read_for(files, star.forward, settings.reader, "reader settings")
    planner, knowledge = make_planner(settings), load_knowledge(settings.knowledge)
    workers = benches(star, posterior, spectra, settings.agent, folder / "stars")
    records = []
    # A picture is drawn where its star is worked on: the trace names the file.
    kept = {"settings": plain(dataclasses.replace(settings, spectra="")), "stars": list(spectra.names)}
    parts = [bench.folder.name for bench in workers if bench.folder is not None]
    # A folder of other settings is refused before its own record of them is written over.
    items = resumable(parts, kept, folder / "done")
    begin(folder, settings, [checkpoint, *files])
    for item, bench in zip(tqdm(items, total=len(workers), unit="star"), workers, strict=True):

        def make(bench: Bench = bench) -> dict[str, Any]:
            return record(bench.name, work(bench, planner, knowledge, settings.budget))

        records.append(item.result(make))
    table = write(folder, records, posterior.label_set, parts)
    for error in refused:
        show(f"refused: {error}")
    return table


def make_planner(settings: Settings) -> Planner:
    """The planner of a name."""
    if settings.planner in PLANNERS:
        return PLANNERS[settings.planner]
    from jaxspec.agent.llm import Endpoint, llm

    assert settings.model is not None
    return llm(Endpoint(settings.model, settings.base_url, json_mode=settings.json_mode))


def load_knowledge(choice: str) -> Knowledge:
    """The table in the package, none, or a file's."""
    if choice in ("false", "none"):
        return Knowledge()
    return Knowledge.load(None if choice == "true" else choice)


def benches(
    star: Star, posterior: PosteriorModel, spectra: Spectra, config: AgentConfig, folder: Path | None
) -> list[Bench]:
    """One bench for each star."""
    parts = file_names(spectra.names)
    metas = spectra.meta or ({},) * spectra.n_stars
    return [
        Bench(
            star,
            posterior,
            name,
            np.asarray(spectra.flux[i]),
            np.asarray(spectra.ivar[i]),
            config,
            metas[i],
            None if folder is None else folder / parts[i],
        )
        for i, name in enumerate(spectra.names)
    ]


def record(name: str, worked: Worked) -> dict[str, Any]:
    """The kept results of a star, as arrays."""
    posterior = worked.posterior
    return {
        "draws": posterior.draws,
        "log_prob": posterior.log_prob,
        "snr": posterior.snr,
        "chi2": posterior.chi2,
        "flags": posterior.flags,
        "trace": np.array(json.dumps(lines(name, worked))),
        "pictures": np.array(json.dumps(worked.state.pictures)),
    }


def write(folder: Path, records: list[dict[str, Any]], label_set: LabelSet, parts: list[str]) -> QTable:
    """`labels.fits`, `trace.jsonl`, and the pages."""
    traces = [json.loads(str(kept["trace"])) for kept in records]
    ends = [rows[-1] for rows in traces]
    posterior = Posterior(
        draws=np.concatenate([kept["draws"] for kept in records], axis=1),
        log_prob=np.concatenate([kept["log_prob"] for kept in records], axis=1),
        label_set=label_set,
        names=tuple(end["star"] for end in ends),
        snr=np.concatenate([kept["snr"] for kept in records]),
        chi2=np.concatenate([kept["chi2"] for kept in records]),
        flags=np.concatenate([kept["flags"] for kept in records]),
    )
    table = posterior.to_table()
    for name, what, kind in (
        ("cause", f"what is wrong: {', '.join(CAUSES)}", "U24"),
        ("p_cause", "its probability among the hypotheses compared", np.float32),
        ("n_fits", "fits made", np.int32),
        ("n_steps", "steps taken", np.int32),
        ("end", "done, or what ended the star before", "U80"),
    ):
        values = np.array([end[name] for end in ends], dtype=kind)
        table["status" if name == "end" else name] = Column(values, description=what)
    write_table(folder / "labels.fits", table)
    text = "".join(json.dumps(row) + "\n" for rows in traces for row in rows)
    atomically(folder / TRACE, lambda partial: partial.write_text(text))
    units = [label.unit for label in label_set]
    for part, rows, kept, flag in zip(parts, traces, records, posterior.flags, strict=True):
        pictures = json.loads(str(kept["pictures"]))
        path = folder / "stars" / part / "index.html"
        write_page(path, rows, label_set.names, units, flags.names(int(flag)), pictures)
    width = max(len(end["star"]) for end in ends)
    for end, flag in zip(ends, posterior.flags, strict=True):
        show(
            f"{end['star']:<{width}}  {end['cause']:<22} {end['p_cause']:5.2f}  {end['n_fits']:>3} fits  "
            f"{flags.names(int(flag))}  {end['end']}"
        )
    return table


def replay_run(folder: Path) -> list[Difference]:
    """Go through an earlier run's trace again, and print whether all of it is the same.

    Raises: InputError for a folder without a trace.
    """
    trace, config = folder / TRACE, folder / "config.yaml"
    if not trace.exists() or not config.exists():
        raise InputError(
            str(folder), f"no {TRACE} with a config.yaml", "the folder of jaxspec agent", "check it"
        )
    settings = build(Settings, yaml.safe_load(config.read_text()), f"{config}: ")
    rows = [json.loads(line) for line in trace.read_text().splitlines()]
    posterior, _ = load_weights(settings.checkpoint)
    star = Star(forward_model(settings.forward, posterior.instrument))
    spectra, _ = read_for(find_files(settings.spectra), star.forward, settings.reader, "reader settings")
    differences: list[Difference] = []
    for bench in benches(star, posterior, spectra, settings.agent, folder / "replayed"):
        own = [row for row in rows if row["star"] == bench.name]
        if not own:
            raise InputError(
                f"{trace}, star {bench.name}", "no steps", "those of the run", "replay its own files"
            )
        _, found = replay(bench, own)
        differences += found
        show(f"{bench.name}: {'bit-equal' if not found else f'{len(found)} differences'}")
        for difference in found[:5]:
            show(f"  step {difference.step}: was {difference.was!s:.200}, now {difference.now!s:.200}")
    return differences
