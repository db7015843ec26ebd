"""The agent's tools as an MCP server, so that any assistant can work on spectra with them.

Standard input and output only. Files are read from the given folders alone; sizes, numbers of stars, fits
and seconds have caps, and what exceeds one is refused with an explanation, not with a crash.

Needs the `agent` extra (mcp, pydantic).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxspec.agent.bench import AgentConfig, Bench, State
from jaxspec.agent.hypotheses import Star
from jaxspec.agent.loop import finish, lines, step
from jaxspec.agent.planners import Action
from jaxspec.agent.tools import TOOLS, Arguments, Tool
from jaxspec.errors import InputError
from jaxspec.posterior.model import PosteriorModel
from jaxspec.reading import ReaderConfig, read_for

if TYPE_CHECKING:
    from mcp.server.mcpserver import MCPServer

ABOUT = (
    "Work on stellar spectra: open_spectrum reads a file and returns the star's name, which every other tool "
    "takes. Look, infer, compare hypotheses, and conclude."
)


@dataclass(frozen=True)
class Caps:
    """Limits of a session.

    Attributes:
        stars: open at a time.
        megabytes: of a file.
        fits: of a star.
        seconds: of computing in a session.
    """

    stars: int = 20
    megabytes: float = 50.0
    fits: int = 60
    seconds: float = 3600.0


USUAL, READER = AgentConfig(), ReaderConfig()


class Session:
    """Open stars and what was done with them.

    Args:
        folders: files outside of these, links followed, are refused.
        pictures: folder that plots are written to; None: none are drawn.
    """

    def __init__(
        self,
        star: Star,
        posterior: PosteriorModel,
        folders: Sequence[str | Path],
        config: AgentConfig = USUAL,
        caps: Caps = Caps(),
        reader: ReaderConfig = READER,
        pictures: Path | None = None,
    ):
        self.star, self.posterior, self.config, self.caps = star, posterior, config, caps
        self.folders = [Path(folder).resolve() for folder in folders]
        self.reader, self.pictures = reader, pictures
        self.benches: dict[str, tuple[Bench, State]] = {}
        self.seconds = 0.0
        for folder in self.folders:
            if not folder.is_dir():
                raise InputError(
                    f"folder {folder}", "no folder", "one to read spectra from", "check the path"
                )

    def list_spectra(self, folder: str = "") -> dict[str, Any]:
        """Files that may be opened, in a folder or in all of them."""
        places = [self._inside(folder)] if folder else self.folders
        files = [
            p
            for place in places
            for p in sorted(place.rglob("*"))
            if p.is_file() and not p.name.startswith(".")
        ]
        return {"files": [str(p) for p in files[:500]], "more": max(len(files) - 500, 0)}

    def open_spectrum(self, path: str) -> dict[str, Any]:
        """Read the spectrum of a file; returns the name of its star."""
        file = self._inside(path)
        if not file.is_file():
            return {"error": f"{path}: no file", "allowed": "a file of list_spectra"}
        if file.stat().st_size > self.caps.megabytes * 1e6:
            return {"error": f"{path}: more than {self.caps.megabytes:g} MB", "allowed": "a smaller file"}
        spectra, refused = read_for(str(file), self.star.forward, self.reader)
        if len(self.benches) + spectra.n_stars > self.caps.stars:
            return {"error": "too many stars are open", "allowed": f"{self.caps.stars}; close one"}
        for i, name in enumerate(spectra.names):
            folder = None if self.pictures is None else self.pictures / Path(name).name
            meta = spectra.meta[i] if spectra.meta else {}
            flux, ivar = np.asarray(spectra.flux[i]), np.asarray(spectra.ivar[i])
            bench = Bench(self.star, self.posterior, name, flux, ivar, self.config, meta, folder)
            self.benches[name] = (bench, bench.start())
        return {"stars": list(spectra.names), "refused": [str(error) for error in refused]}

    def close_star(self, star: str) -> dict[str, Any]:
        """Forget a star."""
        self._bench(star)
        del self.benches[star]
        return {"open": list(self.benches)}

    def result(self, star: str) -> dict[str, Any]:
        """Labels, errors and cause of a star as they stand."""
        bench, state = self._bench(star)
        worked = finish(bench, state, "still open" if state.conclusion is None else "done", ())
        end = lines(star, worked)[-1]
        names = bench.star.label_set.names
        return end | {
            "labels": dict(zip(names, end["labels"], strict=True)),
            "errors": dict(zip(names, end["errors"], strict=True)),
            "flags": int(worked.posterior.flags[0]),
        }

    def use(self, tool: Tool, star: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """One tool on one star."""
        bench, state = self._bench(star)
        if self.seconds > self.caps.seconds:
            return {
                "error": "the session's time is spent",
                "allowed": f"{self.caps.seconds:g} s of computing",
            }
        if state.n_fits >= self.caps.fits and tool.name in ("infer", "compare"):
            return {"error": "the star's fits are spent", "allowed": f"{self.caps.fits} fits"}
        begun = time.monotonic()
        state, observation = step(bench, state, Action(tool.name, arguments))
        self.seconds += time.monotonic() - begun
        self.benches[star] = (bench, state)
        return observation

    def _bench(self, star: str) -> tuple[Bench, State]:
        if star not in self.benches:
            known = ", ".join(self.benches) or "none is open"
            raise InputError("star", repr(star), known, "open its spectrum first")
        return self.benches[star]

    def _inside(self, path: str) -> Path:
        place = Path(path).expanduser()
        if not place.is_absolute():
            place = self.folders[0] / place
        place = place.resolve()
        if not any(place == folder or folder in place.parents for folder in self.folders):
            shown = ", ".join(map(str, self.folders))
            raise InputError(
                f"path {path}", "outside the session's folders", f"inside of {shown}", "choose another"
            )
        return place


def make_server(session: Session) -> MCPServer:
    """The server of a session."""
    try:
        from mcp.server.mcpserver import MCPServer
    except ImportError as error:
        raise InputError("mcp", "no mcp", "the extra agent", 'pip install "jaxspec[agent]"') from error
    server = MCPServer("jaxspec", instructions=ABOUT)

    def refusing(function):
        def guarded(**arguments: Any) -> dict[str, Any]:
            try:
                return function(**arguments)
            except InputError as error:
                return {"error": f"{error.where}: {error.found}", "allowed": error.expected}

        return guarded

    for function in (session.list_spectra, session.open_spectrum, session.close_star, session.result):
        _add(
            server,
            refusing(function),
            function.__name__,
            function.__doc__ or "",
            function.__annotations__,
            function,
        )
    for tool in TOOLS.values():

        def use(star: str, arguments: Arguments | None = None, tool: Tool = tool) -> dict[str, Any]:
            given = {} if arguments is None else arguments.model_dump(exclude_none=True)
            return session.use(tool, star, given)

        _add_tool(server, refusing(use), tool)
    return server


def _add(server: MCPServer, run: Any, name: str, text: str, annotations: dict[str, Any], like: Any) -> None:
    import inspect

    parameters = [
        inspect.Parameter(p.name, inspect.Parameter.KEYWORD_ONLY, default=p.default, annotation=str)
        for p in inspect.signature(like).parameters.values()
    ]
    _signed(run, parameters)
    server.add_tool(run, name=name, description=text)


def _add_tool(server: MCPServer, run: Any, tool: Tool) -> None:
    import inspect

    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [inspect.Parameter("star", keyword, annotation=str)]
    if tool.arguments.model_fields:
        required = any(f.is_required() for f in tool.arguments.model_fields.values())
        default = inspect.Parameter.empty if required else None
        kind = tool.arguments if required else tool.arguments | None
        parameters.append(inspect.Parameter("arguments", keyword, default=default, annotation=kind))
    _signed(run, parameters)
    server.add_tool(run, name=tool.name, description=tool.text)


def _signed(run: Any, parameters: list[Any]) -> None:
    """Give a function of any keywords the signature from which the server makes its schema."""
    import inspect

    run.__signature__ = inspect.Signature(parameters, return_annotation=dict[str, Any])
    run.__annotations__ = {p.name: p.annotation for p in parameters} | {"return": dict[str, Any]}
