import numpy as np
import pytest
from astropy.io import fits

from jaxspec.errors import InputError
from jaxspec.instruments import get_instrument, lsf_sigma
from jaxspec.resampling import rebin_to_instrument
from jaxspec.spectra import doppler_shift
from jaxspec.velocity import radial_velocity

HR10 = get_instrument("giraffe_hr10")
FINE = np.arange(5310.0, 5630.0, 0.01)


def made_up_template(seed=0):
    rng = np.random.default_rng(seed)
    tau = np.zeros(FINE.size)
    for centre in rng.uniform(5310, 5630, 300):
        near = slice(*np.searchsorted(FINE, [centre - 1, centre + 1]))
        tau[near] += rng.gamma(0.5, 0.6) * np.exp(
            -0.5 * ((FINE[near] - centre) / lsf_sigma(centre, 2e4)) ** 2
        )
    return np.exp(-tau)


TEMPLATE = made_up_template()


def observe(velocity, snr, rng, template=TEMPLATE):
    """The template as seen moving at `velocity` through HR10's pixels, with a tilted continuum and noise."""
    ones = np.ones(FINE.size)
    flux, _ = rebin_to_instrument(doppler_shift(FINE, velocity), template, ones, HR10)
    flux *= 300 * (1 + 0.2 * np.linspace(-1, 1, flux.size))
    return flux + rng.normal(0, 300 / snr, flux.size), np.full(flux.size, (snr / 300) ** 2)


@pytest.mark.parametrize("velocity", [-480.0, -61.37, 0.0, 0.8, 233.3])
def test_known_velocities_are_recovered_to_ten_metres_per_second(velocity, rng):
    flux, ivar = observe(velocity, 1e4, rng)
    ivar[1000:1300], flux[1000:1300] = 0.0, np.nan
    result = radial_velocity(HR10.wavelength, flux, ivar, FINE, TEMPLATE)
    assert result.velocity == pytest.approx(velocity, abs=0.01)


@pytest.mark.parametrize("snr", [8, 60])
def test_errors_are_honest(snr, rng):
    """Pulls of 150 noisy copies: mean and width of a unit normal within 3.5 of their own errors."""
    clean, _ = observe(41.7, 1e9, rng)
    pulls, errors = [], []
    for _ in range(150):
        flux = clean + rng.normal(0, 300 / snr, clean.size)
        velocity, error = radial_velocity(
            HR10.wavelength, flux, np.full(flux.size, (snr / 300) ** 2), FINE, TEMPLATE, max_velocity=100
        )
        pulls.append((velocity - 41.7) / error)
        errors.append(error)
    assert abs(np.mean(pulls)) < 3.5 / np.sqrt(150)
    assert abs(np.std(pulls) - 1) < 3.5 / np.sqrt(300)
    # The error follows the noise: it is inversely proportional to the S/N.
    assert np.median(errors) * snr == pytest.approx(1.005, rel=0.02)


def test_a_wrong_template_has_a_larger_error(rng):
    flux, ivar = observe(10.0, 200, rng)
    right = radial_velocity(HR10.wavelength, flux, ivar, FINE, TEMPLATE)
    wrong = radial_velocity(HR10.wavelength, flux, ivar, FINE, np.minimum(TEMPLATE**2.0 + 0.1, 1.0))
    assert wrong.error > 2 * right.error and abs(wrong.velocity - 10.0) < 4 * wrong.error + 0.1


def star(data, name):
    wavelength, flux, error = np.loadtxt(data / "spectra" / "hr10" / f"{name}.txt").T
    return wavelength, flux, np.where(error > 0, 1 / np.where(error > 0, error, 1) ** 2, 0)


@pytest.mark.parametrize("name", ["sun_vesta_harps", "16_cyg_a_harps", "procyon_uves_1", "alpha_cen_b_uves"])
def test_shifted_copies_of_real_stars(data, name, rng):
    """Another star and spectrograph as template: shifts come back within three errors and 0.3 km/s, also at
    S/N 30."""
    template = star(data, "sun_uves")[:2]
    wavelength, flux, ivar = star(data, name)

    def measure(shift, snr=None):
        moved, weight = rebin_to_instrument(doppler_shift(wavelength, shift), flux, ivar, HR10)
        if snr is not None:
            moved, weight = moved + rng.normal(0, 1 / snr, moved.size), np.where(weight > 0, snr**2, 0.0)
        return radial_velocity(HR10.wavelength, moved, weight, *template, max_velocity=250)

    rest = measure(0.0)
    for shift in (-150.3, 0.37, 61.2):
        for snr in (None, 30):
            found = measure(shift, snr)
            # Zero points add as relativistic velocities do; at these speeds the sum is enough.
            difference = found.velocity - rest.velocity - shift
            assert abs(difference) < min(3 * np.hypot(found.error, rest.error), 0.3) + (0.1 if snr else 0.0)


def test_giraffe_sun_against_its_own_header(data):
    """The survey's velocity of this spectrum, 0.156 km/s with an error of 0.10, on the template's own zero
    point."""
    (path,) = (data / "spectra" / "giraffe").glob("*.fit")
    with fits.open(path) as file:
        header, flux = file[0].header, np.asarray(file[0].data, float)
        ivar = np.asarray(file["final_ivar"].data, float)
        published, error = (float(file["velclass"].data[c][0]) for c in ("VEL", "EVEL"))
    wavelength = header["CRVAL1"] + header["CD1_1"] * (np.arange(flux.size) + 1 - header["CRPIX1"])
    template, vesta = star(data, "sun_uves"), star(data, "sun_vesta_harps")
    sun = radial_velocity(wavelength, flux, ivar, *template[:2], max_velocity=100)
    # Two spectra of the Sun, each known to some 0.5 km/s in zero point.
    zero = radial_velocity(*vesta, *template[:2], max_velocity=100)
    assert sun.error < 0.1
    assert abs(sun.velocity - 0.5 * zero.velocity - published) < 0.6 + 3 * error


def test_bad_input_is_refused(rng):
    flux, ivar = observe(300.0, 50, rng)
    with pytest.raises(InputError, match="found 0 good pixels"):
        radial_velocity(HR10.wavelength, flux, 0 * ivar, FINE, TEMPLATE)
    with pytest.raises(InputError, match="use a template of the same range"):
        radial_velocity(HR10.wavelength, flux, ivar, FINE + 1000, TEMPLATE)
    with pytest.raises(InputError, match="template for radial_velocity, flux: found nan"):
        radial_velocity(HR10.wavelength, flux, ivar, FINE, np.where(FINE < 5400, np.nan, TEMPLATE))
    with pytest.raises(InputError, match="spectrum for radial_velocity, ivar"):
        radial_velocity(HR10.wavelength, flux, -ivar, FINE, TEMPLATE)
    ramp = np.linspace(2.0, 1.0, flux.size)
    with pytest.raises(InputError, match="edge of the search"):
        radial_velocity(
            HR10.wavelength, ramp, ivar, FINE, np.exp(-(((FINE - 5330) / 100) ** 2)), max_velocity=50
        )
