"""A star always ends with labels, a cause and a status; its trace can be gone through again, bit for bit."""

import json

import pytest

from jaxspec.agent.hypotheses import CAUSES, ORDINARY, UNKNOWN
from jaxspec.agent.loop import DONE, Budget, lines, replay, work
from jaxspec.agent.planners import Action, rules
from jaxspec.errors import InputError
from jaxspec.posterior.flags import Flag
from tests.agent.test_evidence import faulty


@pytest.fixture(scope="module")
def bad(star, truth, observed):
    return observed(faulty(star, truth, "emission"))


def test_rules_find_the_cause_and_the_labels(make_bench, bad, truth, star, tmp_path):
    bench = make_bench(*bad, folder=tmp_path / "HD_1")
    worked = work(bench, rules)
    assert (worked.status, worked.conclusion.cause) == (DONE, "emission")
    assert worked.conclusion.labels_from == "emission" and worked.conclusion.p_cause > 0.99
    n = star.n_label
    pull = (worked.posterior.median[0] - truth[:n]) / worked.posterior.error[0]
    assert abs(pull).max() < 4.0
    assert not worked.posterior.flags[0] & int(Flag.BAD_FIT | Flag.OUT_OF_RANGE)
    assert [p.name for p in sorted((tmp_path / "HD_1").glob("*.png"))] == list(worked.state.pictures) != []
    rows = json.loads(json.dumps(lines("HD 1", worked)))
    assert rows[-1]["cause"] == "emission" and [r["step"] for r in rows[:-1]] == list(range(1, len(rows)))
    assert all(r["reason"] for r in rows[:-1])
    # The same actions on the same spectrum give the same numbers; a changed trace is found out.
    again, differences = replay(make_bench(*bad, folder=tmp_path / "again"), rows)
    assert differences == [] and (again.posterior.draws == worked.posterior.draws).all()
    rows[-1]["labels"][0] += 1e-9
    rows[3]["observation"]["best"] = "binary"
    _, differences = replay(make_bench(*bad, folder=tmp_path / "again"), rows)
    assert [d.step for d in differences] == [4, len(rows)]


def endless(brief):
    """A planner that never concludes."""
    i = 0
    while True:
        i += 1
        yield Action("mask", {"low": 5340.0 + i % 9, "high": 5340.5 + i % 9})


def repeating(brief):
    while True:
        yield Action("look_at_spectrum", {})


def blundering(brief):
    while True:
        yield Action("teleport", {})


def fitting(brief):
    for name in [c for c in CAUSES if c != UNKNOWN] * 2:
        yield Action("compare", {"hypotheses": [name]})


def talking(brief):
    while True:
        yield Action("look_at_spectrum", {}, tokens=700)


def failing(brief):
    yield Action("look_at_spectrum", {})
    raise RuntimeError("no idea")


def silent(brief):
    return
    yield


@pytest.mark.parametrize(
    ("planner", "budget", "status"),
    [
        (endless, Budget(steps=5), "budget of steps spent"),
        (repeating, Budget(repeats=3), "budget of repeats spent"),
        (blundering, Budget(errors=2, repeats=9), "budget of errors spent"),
        (fitting, Budget(fits=2), "budget of fits spent"),
        (talking, Budget(tokens=1000, repeats=9), "budget of tokens spent"),
        (endless, Budget(seconds=1e-6), "budget of seconds spent"),
        (failing, Budget(), "the planner failed: RuntimeError: no idea"),
        (silent, Budget(), "the planner stopped without a conclusion"),
    ],
)
def test_every_budget_ends_with_a_result_and_a_status(make_bench, bad, planner, budget, status):
    worked = work(make_bench(*bad), planner, budget=budget)
    assert worked.status == status
    assert worked.posterior.draws.shape[1:] == (1, 9) and worked.conclusion.cause in CAUSES
    assert len(worked.steps) <= budget.steps
    if planner is fitting:  # two hypotheses were fitted: the better one counts
        assert worked.state.n_fits == 3 and worked.conclusion.cause in (ORDINARY, "wrong velocity")
    else:
        assert worked.conclusion.cause == UNKNOWN


def test_budgets_are_positive():
    with pytest.raises(InputError, match=r"budget\.fits"):
        Budget(fits=0)
