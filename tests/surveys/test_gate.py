"""What the gate decides from evidence, and what it says."""

from dataclasses import replace

import pytest

from jaxspec.errors import InputError
from jaxspec.surveys.gate import Evidence, GateConfig, decide

NONE = Evidence(auc=0.95, auc_weighted=0.93, loss=-5.0, width=0.3, shift=0.1)
GOOD = replace(NONE, auc=0.7, auc_weighted=0.68, loss=-4.8)
BETTER = replace(GOOD, auc_weighted=0.64)


def test_the_most_alike_method_is_chosen():
    found = decide({"none": NONE, "coral": GOOD, "cdan": BETTER})
    assert found.method == "cdan" and "0.93" in found.reason and "0.64" in found.reason and not found.refused


def test_surveys_that_look_alike_are_left_alone():
    same = replace(NONE, auc=0.52, auc_weighted=0.52)
    found = decide({"none": same, "cdan": replace(same, auc_weighted=0.5)})
    assert found.method == "none" and "nothing to align" in found.reason


def test_other_stars_are_no_other_instrument():
    other = replace(NONE, auc=0.9, auc_weighted=0.55, shift=0.7)
    found = decide({"none": other, "cdan": GOOD})
    assert found.method == "none" and found.weights and "stars" in found.reason


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"auc_weighted": 0.95}, "failed alignment"),
        ({"auc_weighted": 0.9}, "aligns nothing"),
        ({"loss": -3.0}, "nats"),
        ({"coverage": 0.4}, "hold 0.40"),
    ],
)
def test_methods_are_refused_with_a_reason(change, words):
    found = decide({"none": NONE, "cdan": replace(GOOD, **change)})
    assert found.method == "none" and words in found.refused["cdan"] and "no method" in found.reason


def test_lines_can_be_moved_and_none_is_needed():
    assert decide({"none": NONE, "cdan": GOOD}, GateConfig(failed=0.6)).method == "none"
    with pytest.raises(InputError, match="of none too"):
        decide({"cdan": GOOD})
