"""The agent's tools as an MCP server on standard input and output, for any assistant that speaks MCP.

`jaxspec mcp FOLDER` serves the spectra of a folder; nothing outside of it is read. Pictures go to the output
folder.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from jaxspec.agent.bench import AgentConfig
from jaxspec.agent.hypotheses import Star
from jaxspec.agent.server import Caps, Session, make_server
from jaxspec.amortised.storage import load_weights
from jaxspec.physics.forward import SHIPPED, forward_model
from jaxspec.reading import ReaderConfig

INPUT, OUTPUT = "folders", "folder"


@dataclass(frozen=True)
class Settings:
    """Settings of the server.

    Attributes:
        folders: spectra are read from these alone.
        agent: seed, draws, prior, errors of the model.
        caps: what a session may use.
        checkpoint: folder of a trained posterior; none: the weights in the package.
        forward: the forward model: folder of an emulator, or dotted name of a function of an instrument.
        reader: what to take where a file says nothing.
    """

    folders: str | tuple[str, ...]
    agent: AgentConfig = field(default_factory=AgentConfig)
    caps: Caps = Caps()
    checkpoint: str | None = None
    forward: str = SHIPPED
    reader: ReaderConfig = ReaderConfig()


def run(settings: Settings, folder: Path) -> None:
    """Serve until the client goes."""
    folders = [settings.folders] if isinstance(settings.folders, str) else list(settings.folders)
    posterior, _ = load_weights(settings.checkpoint)
    star = Star(forward_model(settings.forward, posterior.instrument))
    session = Session(star, posterior, folders, settings.agent, settings.caps, settings.reader, folder)
    make_server(session).run("stdio")
