"""The command: files that follow from the stars, a second run that goes on, and a replay to the last bit."""

import json

import numpy as np
import pytest

pytest.importorskip("pydantic")

from jaxspec.agent.bench import AgentConfig
from jaxspec.agent.evidence import EXACT
from jaxspec.commands import agent
from jaxspec.errors import InputError
from jaxspec.io import read_table
from jaxspec.spectra import Spectra
from tests.agent.conftest import VaguePosterior


@pytest.fixture
def toy_files(toy, tmp_path, monkeypatch):
    """Two toy spectra in the place of files; the number of stars that were worked on."""
    from jaxspec.agent.hypotheses import Star

    star = Star(toy)
    theta = np.append(star.label_set.scaled_solar(5200.0, 3.6, -0.2), [0.0, 0.3, 16.0, 0.2, 1.0])
    flux, rng = star(theta)[0], np.random.default_rng(1)
    both = np.stack([flux, (flux + 0.2) / 1.2]) + rng.normal(0.0, 0.005, (2, flux.size))
    spectra = Spectra.create(
        both, np.full(both.shape, 4e4), toy.instrument.wavelength, names=["HD 1", "HD 2"], meta=[{}, {}]
    )
    done, original = [], agent.work
    monkeypatch.setattr(agent, "find_files", lambda paths: [])
    monkeypatch.setattr(
        agent, "read_for", lambda *a: (spectra, [InputError("b.fits", "no", "a file", "mend")])
    )
    monkeypatch.setattr(
        agent, "load_weights", lambda path: (VaguePosterior(toy.instrument, toy.label_set), tmp_path)
    )
    monkeypatch.setattr(agent, "forward_model", lambda name, instrument: toy)
    monkeypatch.setattr(agent, "work", lambda bench, *a: done.append(bench.name) or original(bench, *a))
    return done


def test_a_run_and_its_replay(toy_files, tmp_path, capsys):
    folder = tmp_path / "run"
    how = AgentConfig(n_draws=200, refine="none", check=False, errors=EXACT)
    settings = agent.Settings("a.fits", agent=how)
    table = agent.run(settings, folder)
    assert list(table["cause"]) == ["ordinary", "scattered light"] and list(table["status"]) == [
        "done",
        "done",
    ]
    written = read_table(folder / "labels.fits")
    assert list(written["source"]) == ["HD 1", "HD 2"] and (written["p_cause"] > 0.5).all()
    assert written["n_fits"].min() >= 2 and written["n_steps"].min() >= 5
    rows = [json.loads(line) for line in (folder / "trace.jsonl").read_text().splitlines()]
    assert [r["cause"] for r in rows if "end" in r] == ["ordinary", "scattered light"]
    np.testing.assert_array_equal(
        written["teff"].value, np.float32([r["labels"][0] for r in rows if "end" in r])
    )
    page = (folder / "stars" / "HD_2" / "index.html").read_text()
    assert "HD 2: scattered light" in page and "scattered_light.png" in page
    assert (folder / "stars" / "HD_2" / "1_scattered_light.png").stat().st_size > 10_000
    assert "refused: b.fits" in capsys.readouterr().out
    # A second run takes what is there; other settings are refused.
    assert toy_files == ["HD 1", "HD 2"]
    (folder / "done" / "HD_2.npz").unlink()
    again = agent.run(settings, folder)
    assert toy_files == ["HD 1", "HD 2", "HD 2"] and (again["teff"] == table["teff"]).all()
    with pytest.raises(InputError, match="an earlier run"):
        agent.run(agent.Settings("a.fits", agent=AgentConfig(seed=2)), folder)
    assert agent.run(agent.Settings(("replay", str(folder))), tmp_path / "unused") == []
    assert "HD 2: bit-equal" in capsys.readouterr().out and not (tmp_path / "unused").exists()


def test_mistakes_are_named(tmp_path):
    with pytest.raises(InputError, match="one of rules, llm"):
        agent.Settings("x", planner="oracle")
    with pytest.raises(InputError, match="--model NAME"):
        agent.Settings("x", planner="llm")
    with pytest.raises(InputError, match=r"no trace\.jsonl"):
        agent.run(agent.Settings(("replay", str(tmp_path))), tmp_path)
    with pytest.raises(InputError, match="dwarfs"):
        AgentConfig(prior="subdwarfs")


@pytest.mark.slow
def test_faults_planted_in_a_real_spectrum(data, tmp_path):
    """The Sun in HR10 with a shift of 60 km/s, and with 8 % of light: the labels come back to those of the
    unspoiled spectrum within their errors, and the replay is bit-equal."""
    from jaxspec import cli

    rows = np.loadtxt(data / "spectra" / "hr10" / "sun_vesta_harps.txt")
    np.savetxt(tmp_path / "plain.txt", rows)
    shifted = np.array(rows)
    shifted[:, 0] *= 1.0 + 60.0 / 299792.458
    np.savetxt(tmp_path / "shifted.txt", shifted)
    lit = np.array(rows)
    lit[:, 1], lit[:, 2] = (lit[:, 1] + 0.08) / 1.08, lit[:, 2] / 1.08
    np.savetxt(tmp_path / "lit.txt", lit)
    files = [str(tmp_path / f"{name}.txt") for name in ("lit", "plain", "shifted")]
    command = ["agent", *files, "-o", str(tmp_path / "run"), "reader.velocity=0", "reader.frame=rest"]
    assert cli.main(command) == 0
    table = read_table(tmp_path / "run" / "labels.fits")
    causes = dict(zip(table["source"], table["cause"], strict=True))
    assert causes["shifted.txt"] == "wrong velocity" and causes["plain.txt"] == "ordinary"
    plain = table[table["source"] == "plain.txt"][0]
    for row in table:
        for name in ("teff", "logg", "fe_h"):
            error = np.hypot(row[f"e_{name}"].value, plain[f"e_{name}"].value)
            assert abs(row[name].value - plain[name].value) < 2.0 * error
    assert cli.main(["agent", "replay", str(tmp_path / "run")]) == 0
