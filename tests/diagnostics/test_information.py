"""Information by pixel and label against what it must add up to, and against the bound of whole stars."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxspec.diagnostics.cramer_rao import BoundConfig, cramer_rao
from jaxspec.diagnostics.information import (
    ONLY_VMIC,
    calibrated_nuisances,
    cramer_rao_bound,
    fisher_information,
)
from jaxspec.diagnostics.line_plots import plot_information
from jaxspec.errors import InputError
from jaxspec.instruments import get_instrument
from jaxspec.labels import NINE_LABELS
from jaxspec.physics.forward import Nuisances, load_forward_model
from tests.toy import TOY_INSTRUMENT, ToyForwardModel

SUN = np.array([5777.0, 4.44, 0.0, 0.05, 0.0, 0.0, -0.05, 0.0, 0.0], np.float32)
KNOWN = BoundConfig(Nuisances(*[0.0] * 5), scattered_light=0.0, continuum_degree=-1)


@pytest.fixture(scope="module")
def forward():
    return ToyForwardModel()


def test_is_the_bound_of_whole_stars(forward):
    ivar = np.full((1, TOY_INSTRUMENT.n_pixels), 80.0**2)
    nuisances = Nuisances(*(np.atleast_1d(np.float32(x)) for x in calibrated_nuisances(jnp.asarray(SUN))))
    expected = cramer_rao(forward, SUN[None], nuisances, ivar).sigma[0]
    found = cramer_rao_bound(forward, SUN, 80.0)
    np.testing.assert_allclose([found[n] for n in NINE_LABELS.names], expected, rtol=1e-6)


def test_pixels_add_up_to_the_bound(forward):
    """sum over pixels of the marginal information is 1 / sigma^2 where only the spectrum tells; knowing all
    else never tells less, pixel by pixel summed."""
    information = fisher_information(forward, SUN, 100.0, config=ONLY_VMIC)
    sigma = np.array(list(information.sigma.values()))
    np.testing.assert_allclose(information.marginal.sum(axis=1), sigma**-2, rtol=1e-6)
    assert (information.known.sum(axis=1) > information.marginal.sum(axis=1)).all()


def test_of_one_label_alone_nothing_is_lost(forward):
    """With everything else known both readings are ivar (dF/dlabel)^2, and sigma is their root's inverse."""
    information = fisher_information(forward, SUN, 50.0, ["mg_h"], config=KNOWN)
    np.testing.assert_allclose(information.marginal, information.known, rtol=1e-9)
    assert information.sigma["mg_h"] == pytest.approx(information.known.sum() ** -0.5)
    prior = fisher_information(forward, SUN, 50.0, ["mg_h"], config=KNOWN, prior=np.array([[1e4]]))
    assert prior.sigma["mg_h"] == pytest.approx((information.known.sum() + 1e4) ** -0.5)


def test_fewer_labels_are_known_better(forward):
    every = cramer_rao_bound(forward, SUN, 100.0)
    some = cramer_rao_bound(forward, SUN, 100.0, ("teff", "fe_h"))
    assert list(some) == ["teff", "fe_h"] and all(some[n] < every[n] for n in some)


def test_unseen_pixels_tell_nothing(forward):
    snr = np.full(TOY_INSTRUMENT.n_pixels, 100.0)
    snr[TOY_INSTRUMENT.slices["red"]] = 0.0
    information = fisher_information(forward, SUN, snr)
    assert not information.marginal[:, TOY_INSTRUMENT.slices["red"]].any()
    with pytest.raises(InputError, match="snr"):
        fisher_information(forward, SUN, snr[1:])
    with pytest.raises(InputError, match="label name"):
        fisher_information(forward, SUN, 100.0, ["li_h"])


def test_where_magnesium_and_calcium_are_read():
    """In a solar spectrum of both arms: the Ca II triplet tells of calcium, Mg I 5528 and 8806 of magnesium;
    the bound is that of the reference code's derivatives (5.9 K, 0.009, 0.004 dex ...) within 35 %."""
    giraffe = get_instrument("giraffe")
    sun = np.array([5777.0, 4.44, *[0.0] * 7])
    quiet = Nuisances(1.0, 0.0, 0.0, 0.0, 1.0)
    information = fisher_information(
        load_forward_model(giraffe), sun, 100.0, nuisances=quiet, config=ONLY_VMIC
    )
    found = np.array(list(information.sigma.values()))
    reference = np.array([5.9, 0.009, 0.004, 0.013, 0.006, 0.003, 0.007, 0.009, 0.006])
    np.testing.assert_allclose(found / reference, 1.0, atol=0.35)

    def share(name, *places):
        part = information.known[NINE_LABELS.index(name)]
        near = np.min(np.abs(giraffe.wavelength[:, None] - np.array(places)), axis=1) < 12
        return part[near].sum() / part.sum()

    assert share("ca_h", 8498.0, 8542.1, 8662.1) > 0.5
    assert share("mg_h", 5528.4, 8712.7, 8717.8, 8736.0, 8806.8, 8923.6) > 0.6


def test_plot_shows_the_bound(forward):
    information = fisher_information(forward, SUN, 100.0, ("teff", "mg_h"))
    figure = plot_information(information, TOY_INSTRUMENT, NINE_LABELS, title="the Sun")
    text = " ".join(t.get_text() for ax in figure.axes for t in ax.texts)
    assert f"{information.sigma['teff']:.1f} K" in text and "the Sun" in figure.axes[0].get_title(loc="left")
