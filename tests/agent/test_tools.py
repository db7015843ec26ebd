"""Tools answer; wrong arguments come back as an observation that says what is allowed."""

import json

import numpy as np
import pytest

from jaxspec.agent.hypotheses import ORDINARY
from jaxspec.agent.tools import MODELS, TOOLS, call, number, probabilities


@pytest.fixture(scope="module")
def spectrum(observed):
    return observed()


@pytest.mark.parametrize(
    ("tool", "arguments", "allowed"),
    [
        ("look_closely", {}, "compare"),
        ("compare", {"hypotheses": ["aliens"]}, "scattered light"),
        ("compare", {"hypotheses": []}, "hypotheses"),
        ("compare", "binary", "hypotheses"),
        ("mask", {"low": 5340.0, "high": 5335.0}, "low < high"),
        ("mask", {"low": 6000.0, "high": 6001.0}, "8500"),
        ("mask", {"low": 5340.0, "high": 5341.0, "why": "cosmic"}, "low"),
        ("drop_arm", {"arm": "green"}, "blue"),
        ("set_velocity", {"velocity": 1e6}, "maximum"),
        ("continuum", {"degree": 99}, "30"),
        ("nuisance", {"name": "teff", "width": 1.0}, "vsini2"),
        ("set_prior", {"prior": "subdwarfs"}, "dwarfs"),
        ("look_at_fit", {}, "compare hypotheses first"),
        ("plot", {"hypothesis": "binary"}, "compare hypotheses first"),
        ("conclude", {"cause": "gremlins"}, "wrong velocity"),
        ("conclude", {"cause": "binary", "labels_from": "guess"}, "none"),
    ],
)
def test_wrong_arguments_say_what_is_allowed(make_bench, spectrum, tool, arguments, allowed):
    bench = make_bench(*spectrum)
    state, observation = call(bench, bench.start(), tool, arguments)
    assert state == bench.start()
    assert observation["error"] and allowed in json.dumps(observation["allowed"])


def test_every_tool_has_a_schema_with_words():
    for tool in TOOLS.values():
        assert tool.text and tool.schema()["type"] == "object"
    assert 10 <= len(TOOLS) <= 14
    assert set(MODELS) <= set(json.dumps(TOOLS["compare"].schema()).replace('"', "").split(", ")) | set(
        MODELS
    )


def test_data_and_models_change_as_told(make_bench, spectrum, star):
    bench = make_bench(*spectrum)
    state = bench.start()
    n = int(bench.data(state.setup).good.sum())
    masked, _ = call(bench, state, "mask", {"low": 5340.0, "high": 5345.0})
    assert n - int(bench.data(masked.setup).good.sum()) == 100
    dropped, seen = call(bench, masked, "drop_arm", {"arm": "blue"})
    assert not bench.data(dropped.setup).good[star.instrument.slices["blue"]].any()
    assert seen["setup"]["dropped"] == ["blue"]
    _, refused = call(bench, dropped, "drop_arm", {"arm": "red"})
    assert "one must stay" in refused["allowed"]
    flat, _ = call(bench, state, "continuum", {"degree": 2})
    assert bench.hypothesis(ORDINARY, flat.setup).degree == 2
    held, _ = call(bench, state, "nuisance", {"name": "vsini2", "width": 0.01})
    widths = {p.name: p.sigma for p in bench.hypothesis(ORDINARY, held.setup).parameters}
    assert widths["vsini2"] == 0.01 and widths["resolution"] == 0.05
    told, _ = call(bench, state, "set_prior", {"prior": "dwarfs"})
    assert bench.hypothesis(ORDINARY, told.setup).labels.logg == (4.4, 0.25)
    assert bench.hypothesis("wrong prior", told.setup).labels.logg == (3.5, 1.3)


def test_a_shift_that_is_taken_out_is_gone(make_bench, observed):
    bench = make_bench(*observed(velocity=12.0))
    _, before = call(bench, bench.start(), "measure_velocity", {})
    state, _ = call(bench, bench.start(), "set_velocity", {"velocity": 12.0})
    _, after = call(bench, state, "measure_velocity", {})
    assert before["velocity_kms"] == pytest.approx(12.0, abs=0.5)
    assert after["velocity_kms"] == pytest.approx(0.0, abs=0.5)


def test_comparing_remembers_and_concludes(make_bench, spectrum):
    for memory, fits in ((True, 2), (False, 3)):
        bench = make_bench(*spectrum, memory=memory)
        state, first = call(bench, bench.start(), "compare", {"hypotheses": [ORDINARY, "scattered light"]})
        again, second = call(bench, state, "compare", {"hypotheses": [ORDINARY]})
        assert again.n_fits == fits and first["best"] == second["best"] == ORDINARY
    chances = probabilities(state, 0.9)
    gap = first["hypotheses"]["scattered light"]["log_evidence_below_best"]
    assert chances["scattered light"] / chances[ORDINARY] == pytest.approx(
        np.exp(-gap) * 0.1 / 9 / 0.9, rel=2e-3
    )
    done, said = call(bench, state, "conclude", {"cause": ORDINARY, "labels_from": ORDINARY})
    assert done.conclusion.p_cause == pytest.approx(chances[ORDINARY])
    assert said == {"concluded": ORDINARY, "p_cause": number(chances[ORDINARY])}
    look = call(bench, done, "look_at_fit", {})[1]
    assert len(look["worst_windows"]) == 5 and all(abs(v) < 5 for v in look["structure_sigma"].values())
    json.dumps([first, look], allow_nan=False)
