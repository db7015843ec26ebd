import numpy as np
import pytest

from jaxspec.errors import InputError
from jaxspec.instruments import INSTRUMENTS, Arm, Instrument, get_instrument, lsf_sigma, register

MINE = """
arms:
  - {name: red, low: 6100, high: 6106.0, step: 0.05, resolving_power: 20000}
  - {name: far, low: 8500.0, high: 8510.0, step: 0.1, resolving_power: [1000.0, 2.0], medium: air}
"""


def test_an_instrument_of_ones_own_is_a_small_file(tmp_path):
    path = tmp_path / "my_red.yaml"
    path.write_text(MINE)
    mine = get_instrument(str(path))
    arms = (Arm("red", 6100.0, 6106.0, 0.05, 20_000.0), Arm("far", 8500.0, 8510.0, 0.1, (1000.0, 2.0)))
    assert mine == Instrument("my_red", arms) and hash(mine) == hash(Instrument("my_red", arms))


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (MINE.replace("step", "stpe"), r"my\.yaml, arms\[0\]\.stpe: found no such setting.*step"),
        (MINE.replace("high: 6106.0, ", ""), r"my\.yaml, arms\[0\]\.high: found nothing"),
        (MINE.replace("6106.0", "6000.0"), r"arm red: found range"),
        (MINE.replace("6106.0", "wide"), r"my\.yaml.*arms\[0\]\.high: found 'wide'; expected a number"),
        ("arms: [", r"my\.yaml: found .*; expected YAML"),
        ("name", r"my\.yaml: found str"),
    ],
)
def test_wrong_files_of_instruments_are_named(tmp_path, text, named):
    path = tmp_path / "my.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=named):
        get_instrument(str(path))
    with pytest.raises(InputError, match="No such file"):
        get_instrument(str(tmp_path / "absent.yaml"))


def test_giraffe_is_as_published():
    giraffe = get_instrument("giraffe")
    assert giraffe.n_pixels == 15_600 == giraffe.wavelength.size
    assert giraffe.slices == {"hr10": slice(0, 5600), "hr21": slice(5600, 15600)}
    assert [arm.resolving_power for arm in giraffe.arms] == [21_500, 18_000]
    assert giraffe.medium == "air"
    for arm in giraffe.arms:
        np.testing.assert_allclose(np.diff(giraffe.wavelength[giraffe.slices[arm.name]]), 0.05, rtol=1e-9)
    assert get_instrument("giraffe_hr10").arms == giraffe.arms[:1]


@pytest.mark.parametrize("instrument", INSTRUMENTS.values(), ids=INSTRUMENTS.keys())
def test_grids_agree_with_each_other(instrument):
    assert instrument.wavelength.dtype == np.float64 and (np.diff(instrument.wavelength) > 0).all()
    assert not instrument.wavelength.flags.writeable
    assert hash(instrument) == hash(Instrument(instrument.name, instrument.arms))
    for number, arm in enumerate(instrument.arms):
        part = instrument.slices[arm.name]
        assert instrument.arm(arm.name) is arm
        assert (instrument.arm_index[part] == number).all() and arm.n_pixels == (
            instrument.arm_index == number
        ).sum()
        np.testing.assert_array_equal(instrument.wavelength[part], arm.wavelength)
        np.testing.assert_allclose(0.5 * (arm.edges[1:] + arm.edges[:-1]), arm.wavelength, rtol=1e-14)
        assert arm.edges[0] == arm.low and arm.edges[-1] == pytest.approx(arm.high, rel=1e-12)
        np.testing.assert_allclose(instrument.resolution[part], arm.resolution(arm.wavelength))


def test_sigma_is_the_width_of_a_gaussian_of_that_fwhm():
    x = np.linspace(-1, 1, 200_001)
    sigma = lsf_sigma(5500.0, 21_500.0)
    above = x[np.exp(-0.5 * (x / sigma) ** 2) > 0.5]
    assert np.ptp(above) == pytest.approx(5500.0 / 21_500.0, abs=2e-5)
    assert lsf_sigma(5500.0, np.inf) == 0.0


def test_a_new_instrument_takes_a_few_lines():
    # R rising linearly over the arm, as a polynomial in A.
    arm = Arm("lower", 4800.0, 5750.0, 0.02, (37_000.0, 2.0))
    assert arm.n_pixels == 47_500
    np.testing.assert_allclose(arm.resolution([4800.0, 5750.0]), [46_600.0, 48_500.0])
    uves = register(Instrument("uves_for_this_test", (arm,)))
    try:
        assert (
            get_instrument("uves_for_this_test") is uves is register(Instrument("uves_for_this_test", (arm,)))
        )
        with pytest.raises(InputError, match="another instrument of that name"):
            register(Instrument("uves_for_this_test", (Arm("other", 1.0, 2.0, 0.1, 100.0),)))
    finally:
        del INSTRUMENTS["uves_for_this_test"]


def test_wrong_definitions_are_refused():
    a, b = Arm("a", 5000.0, 5100.0, 0.1, 1e4), Arm("b", 5050.0, 5200.0, 0.1, 1e4)
    with pytest.raises(InputError, match="do not overlap"):
        Instrument("x", (a, b))
    with pytest.raises(InputError, match="each name once"):
        Instrument("x", (a, a))
    with pytest.raises(InputError, match="one medium"):
        Instrument("x", (a, Arm("c", 6000.0, 6100.0, 0.1, 1e4, "vacuum")))
    with pytest.raises(InputError, match="0 < low < high"):
        Arm("a", 5100.0, 5000.0, 0.1, 1e4)
    with pytest.raises(InputError, match="0 < low < high"):
        Arm("a", 5000.0, 5000.2, 0.5, 1e4)
    with pytest.raises(InputError, match="resolving power"):
        Arm("a", 5000.0, 5100.0, 0.1, (1e4, -3.0))
    with pytest.raises(InputError, match="medium 'water'"):
        Arm("a", 5000.0, 5100.0, 0.1, 1e4, "water")
    with pytest.raises(InputError, match="giraffe, giraffe_hr10"):
        get_instrument("girafe")
    with pytest.raises(InputError, match="arm 'hr15'"):
        get_instrument("giraffe").arm("hr15")
