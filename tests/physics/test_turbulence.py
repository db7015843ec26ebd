import jax.numpy as jnp
import numpy as np
import pytest

from jaxspec.physics.turbulence import vmac_calibration, vmic_calibration


def at(relation, teff, logg, fe_h=0.0):
    return float(relation(jnp.float32(teff), jnp.float32(logg), jnp.float32(fe_h)))


def test_sun():
    assert at(vmic_calibration, 5777, 4.44) == pytest.approx(1.07, abs=0.03)
    assert at(vmac_calibration, 5777, 4.44) == pytest.approx(3.21, abs=0.01)


def test_vmic_as_used_for_the_reference(reference):
    """The reference spectra carry the value of the same relation, programmed by others."""
    ours = vmic_calibration(*jnp.asarray(reference["labels"][:, :3].T, jnp.float32))
    np.testing.assert_allclose(ours, reference["vmic"], atol=0.02)


def test_giants_and_hot_stars_move_faster():
    assert at(vmic_calibration, 4500, 1.0) > at(vmic_calibration, 4500, 3.0) > at(vmic_calibration, 4500, 4.5)
    assert at(vmac_calibration, 6300, 4.2) > at(vmac_calibration, 5777, 4.2) > at(vmac_calibration, 5300, 4.2)
    assert 5.0 < at(vmac_calibration, 4500, 1.0) < 7.0


def test_both_stay_physical_over_the_label_range():
    teff, logg, fe_h = (
        x.ravel()
        for x in jnp.meshgrid(*map(jnp.asarray, ([4000.0, 5500.0, 7000.0], [0.5, 2.5, 5.0], [-2.5, 0.5])))
    )
    for relation in (vmic_calibration, vmac_calibration):
        values = relation(teff, logg, fe_h)
        assert np.all((values > 0.5) & (values < 10))
