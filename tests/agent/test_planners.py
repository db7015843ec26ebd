"""The rules' eyes and memory: symptoms, what they meant, and the order in which causes are tested."""

import pytest

from jaxspec.agent.hypotheses import CAUSES, ORDINARY, UNKNOWN
from jaxspec.agent.planners import NOTHING, Brief, Knowledge, explained, rules, symptoms
from jaxspec.errors import InputError

CLEAN = {
    "structure_sigma": {"blue": 0.5, "red": -1.0},
    "ripples": [{"arm": "blue", "power": 8.0}, {"arm": "red", "power": 9.0}],
    "triplet_emission_sigma": 1.0,
    "paschen_absorption_sigma": 0.0,
    "chi2_by_arm": {"blue": 1.0, "red": 1.0},
    "at_limits": [],
}
STILL = {"velocity_kms": 0.3, "error_kms": 0.1, "two_velocities": {"gain": 0.01, "ratio": 0.05}}


def test_symptoms():
    assert symptoms({}, STILL, CLEAN) == () and explained(CLEAN)
    moving = STILL | {"velocity_kms": -40.0}
    assert symptoms({}, moving, CLEAN) == ("shifted",)
    assert symptoms({}, STILL | {"velocity_kms": 40.0, "error_kms": 20.0}, CLEAN) == ()
    double = STILL | {"two_velocities": {"gain": 0.4, "ratio": 0.6}}
    assert symptoms({"prior": "dwarfs"}, double, CLEAN) == ("two velocities", "restrictive prior")
    wavy = CLEAN | {"ripples": [{"arm": "blue", "power": 8.0}, {"arm": "red", "power": 400.0}]}
    assert symptoms({}, STILL, wavy) == ("ripples in one arm",) and not explained(wavy)
    bright = CLEAN | {"triplet_emission_sigma": 30.0, "structure_sigma": {"red": 20.0}}
    assert symptoms({}, STILL, bright) == ("misfit", "light in the triplet") and not explained(bright)


def test_knowledge_ranks_by_what_was_seen(tmp_path):
    nothing = Knowledge()
    assert nothing.rank(("shifted",)) == [c for c in CAUSES if c not in (ORDINARY, UNKNOWN)]
    learned = Knowledge(origin="a test")
    for _ in range(5):
        learned = learned.with_star("fringes", ("ripples in one arm", "misfit"))
        learned = learned.with_star("emission", ("misfit", "light in the triplet"))
        learned = learned.with_star("binary", ("misfit", "two velocities"))
    assert learned.rank(("misfit", "ripples in one arm"))[0] == "fringes"
    assert learned.rank(("misfit", "light in the triplet"))[0] == "emission"
    # Once in five: (5 + 1) / (5 + 2) for the hit against (0 + 1) / (5 + 2) for the others.
    assert learned.counts["misfit"] == {"fringes": 5, "emission": 5, "binary": 5}
    learned.save(tmp_path / "knowledge.json")
    assert Knowledge.load(tmp_path / "knowledge.json") == learned
    assert "light in the triplet: emission 5/5" in learned.page()
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(InputError, match="no table"):
        Knowledge.load(tmp_path / "other.json")
    assert Knowledge.load().origin


def drive(observations, spectrum=None, knowledge=NOTHING):
    """The tools that the rules call when each answers as told; `compare` is answered by its hypotheses."""
    plan, called, fitted = rules(Brief("x", knowledge)), [], {}
    action = next(plan)
    while True:
        called.append((action.tool, action.arguments))
        if action.tool == "compare":
            fitted |= {
                name: observations["evidence"].get(name, -50.0) for name in action.arguments["hypotheses"]
            }
            best = max(fitted, key=lambda name: fitted[name])
            rows = {
                name: {"log_evidence_below_best": fitted[best] - value, "probability": float(name == best)}
                for name, value in fitted.items()
            }
            answer = {"best": best, "hypotheses": rows, "parameters_of_best": {"velocity": {"value": 33.0}}}
        elif action.tool == "look_at_fit":
            answer = observations["looks"].get(action.arguments["hypothesis"], CLEAN)
        elif action.tool == "measure_velocity":
            answer = observations.get("velocity", STILL)
        else:
            answer = spectrum or {} if action.tool == "look_at_spectrum" else {}
        try:
            action = plan.send(answer)
        except StopIteration:
            return called


def test_an_ordinary_star_is_asked_about_what_labels_can_imitate():
    called = drive({"evidence": {ORDINARY: 0.0, "scattered light": -3.0}, "looks": {}})
    asked = [name for tool, a in called if tool == "compare" for name in a["hypotheses"]]
    assert asked == [ORDINARY, "scattered light", "wrong resolving power"]
    assert called[-1][1]["cause"] == ORDINARY and called[-1][1]["labels_from"] == "infer"
    # Evidence that is higher by less than `SURE` does not make a cause.
    close = drive({"evidence": {ORDINARY: 0.0, "scattered light": 3.0}, "looks": {}})
    assert close[-1][1]["cause"] == ORDINARY
    sure = drive({"evidence": {ORDINARY: 0.0, "scattered light": 30.0}, "looks": {}})
    assert (sure[-1][1]["cause"], sure[-1][1]["labels_from"]) == ("scattered light", "scattered light")


def test_a_shift_is_taken_out_and_a_prior_changed_before_the_labels_are_inferred_again():
    bad = CLEAN | {"structure_sigma": {"red": 300.0}}
    shifted = {"evidence": {ORDINARY: 0.0, "wrong velocity": 900.0}, "looks": {ORDINARY: bad}}
    called = drive(shifted | {"velocity": STILL | {"velocity_kms": 33.0}})
    assert [tool for tool, _ in called][-4:] == ["plot", "set_velocity", "infer", "conclude"]
    assert called[-3][1] == {"velocity": 33.0} and called[-1][1]["labels_from"] == "infer"
    giant = {"evidence": {ORDINARY: 0.0, "wrong prior": 40.0}, "looks": {}}
    called = drive(giant, {"prior": "dwarfs"})
    assert [tool for tool, _ in called][-3:] == ["set_prior", "infer", "conclude"]
    assert called[-1][1]["cause"] == "wrong prior"


def test_what_nothing_explains_is_unknown():
    bad = CLEAN | {"structure_sigma": {"red": 300.0}, "chi2_by_arm": {"red": 9.0}}
    called = drive({"evidence": {ORDINARY: 0.0, "emission": 20.0}, "looks": {ORDINARY: bad, "emission": bad}})
    assert called[-1][1]["cause"] == UNKNOWN and called[-1][1]["labels_from"] == "none"


def test_knowledge_saves_fits():
    bad = CLEAN | {"structure_sigma": {"red": 300.0}, "triplet_emission_sigma": 40.0}
    told = {"evidence": {ORDINARY: 0.0, "emission": 900.0}, "looks": {ORDINARY: bad}}
    learned = Knowledge().with_star("emission", ("gross misfit", "light in the triplet"))
    fits = [sum(tool == "compare" for tool, _ in drive(told, knowledge=k)) for k in (Knowledge(), learned)]
    assert fits[1] == 2 < fits[0]
