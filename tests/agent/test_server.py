"""The MCP server with a real client: tools are listed, a session goes through, and what is outside is
refused."""

import asyncio
import os
import sys

import pytest

pytest.importorskip("mcp")

from mcp import Client, StdioServerParameters

from jaxspec.agent import server as module
from jaxspec.agent.bench import AgentConfig
from jaxspec.agent.evidence import EXACT
from jaxspec.agent.hypotheses import ORDINARY
from jaxspec.agent.server import Caps, Session, make_server
from jaxspec.agent.tools import TOOLS
from jaxspec.errors import InputError
from jaxspec.spectra import Spectra

# The library's own transport leaves a stream to the garbage collector.
pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture
def session(star, posterior, observed, tmp_path, monkeypatch):
    folder = tmp_path / "spectra"
    folder.mkdir()
    (folder / "hd1.txt").write_text("a spectrum")
    (tmp_path / "secret.txt").write_text("none of your business")
    (folder / "link.txt").symlink_to(tmp_path / "secret.txt")
    flux, ivar = observed()

    def read(path, forward, config):
        spectra = Spectra.create(flux[None], ivar[None], star.instrument.wavelength, names=["HD 1"])
        return spectra, []

    monkeypatch.setattr(module, "read_for", read)
    config = AgentConfig(n_draws=100, refine="none", check=False, errors=EXACT)
    return Session(star, posterior, [folder], config, Caps(stars=1, fits=2))


def talk(server, *calls):
    """Names of the tools, and what each call returns, through a client in this process."""

    async def main():
        async with Client(server) as client:
            tools = (await client.list_tools()).tools
            return tools, [(await client.call_tool(name, arguments)) for name, arguments in calls]

    return asyncio.run(main())


def test_a_client_works_on_a_star(session, tmp_path):
    tools, answers = talk(
        make_server(session),
        ("list_spectra", {}),
        ("open_spectrum", {"path": "hd1.txt"}),
        ("look_at_spectrum", {"star": "HD 1"}),
        ("compare", {"star": "HD 1", "arguments": {"hypotheses": [ORDINARY, "scattered light"]}}),
        ("compare", {"star": "HD 1", "arguments": {"hypotheses": ["emission"]}}),
        ("conclude", {"star": "HD 1", "arguments": {"cause": ORDINARY, "labels_from": ORDINARY}}),
        ("result", {"star": "HD 1"}),
        ("close_star", {"star": "HD 1"}),
        ("result", {"star": "HD 1"}),
    )
    assert {tool.name for tool in tools} >= set(TOOLS)
    assert all(tool.description for tool in tools)
    found = [answer.structured_content for answer in answers]
    assert [path.rpartition("/")[2] for path in found[0]["files"]] == ["hd1.txt", "link.txt"]
    assert found[1] == {"stars": ["HD 1"], "refused": []}
    assert found[2]["arms"]["red"]["snr"] == pytest.approx(150.0, rel=0.1)
    assert found[3]["best"] == ORDINARY
    assert found[4]["error"] == "the star's fits are spent"
    assert found[6]["cause"] == ORDINARY and set(found[6]["labels"]) == set(session.star.label_set.names)
    assert found[7] == {"open": []} and "open its spectrum" not in str(found[8]["allowed"])


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../secret.txt", "link.txt", "~/x", "hd1.txt/../../secret.txt"]
)
def test_nothing_outside_of_the_folders_is_read(session, path):
    _, (answer,) = talk(make_server(session), ("open_spectrum", {"path": path}))
    assert "outside the session's folders" in answer.structured_content["error"]


def test_caps(session, tmp_path):
    assert "error" not in session.open_spectrum("hd1.txt")
    assert session.open_spectrum("hd1.txt")["error"] == "too many stars are open"
    big = session.folders[0] / "big.txt"
    big.write_bytes(b"x" * 2_000_000)
    session.caps = Caps(megabytes=1.0)
    assert "more than 1 MB" in session.open_spectrum("big.txt")["error"]
    session.seconds = 1e9
    assert session.use(TOOLS["infer"], "HD 1", {})["error"] == "the session's time is spent"
    with pytest.raises(InputError, match="no folder"):
        Session(session.star, session.posterior, [tmp_path / "missing"])


@pytest.mark.slow
def test_the_command_serves_the_giraffe_sun(data, tmp_path):
    """The official client starts `jaxspec mcp` as a process and goes through a session."""
    folder = data / "spectra" / "giraffe"
    command = ["-m", "jaxspec.cli", "mcp", str(folder), "-o", str(tmp_path)]
    parameters = StdioServerParameters(command=sys.executable, args=command, env=dict(os.environ))
    _, answers = talk(
        parameters,
        ("open_spectrum", {"path": str(data / "spectra" / "hr10" / "sun_uves.txt")}),
        ("open_spectrum", {"path": next(p.name for p in folder.iterdir() if p.suffix == ".fit")}),
    )
    assert "outside" in answers[0].structured_content["error"]
    (name,) = answers[1].structured_content["stars"]
    both = {"hypotheses": [ORDINARY, "wrong resolving power"]}
    _, answers = talk(
        parameters,
        ("open_spectrum", {"path": name}),
        ("infer", {"star": name}),
        ("compare", {"star": name, "arguments": both}),
        ("conclude", {"star": name, "arguments": {"cause": ORDINARY, "labels_from": "infer"}}),
        ("result", {"star": name}),
    )
    result = answers[-1].structured_content
    assert abs(result["labels"]["teff"] - 5772.0) < 3.0 * result["errors"]["teff"]
