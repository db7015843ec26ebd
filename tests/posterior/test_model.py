"""What gives posteriors is known by what it can do."""

from jaxspec.amortised.amortised import AmortisedPosterior
from jaxspec.amortised.ensemble import Ensemble
from jaxspec.posterior.model import PosteriorModel

MEMBERS = {
    *("label_set", "instrument", "prior", "limits", "provenance"),
    *("prepare", "sample_normalised", "log_prob", "flag"),
}


def test_both_kinds_have_all_members():
    assert {name for name in vars(PosteriorModel) if not name.startswith("_")} == MEMBERS
    for kind in (AmortisedPosterior, Ensemble):
        fields = set(kind.__dataclass_fields__)
        assert all(hasattr(kind, name) or name in fields for name in MEMBERS), kind


def test_others_are_not_taken_for_one():
    assert not isinstance(object(), PosteriorModel)
