"""Rows are one star's only where nothing contradicts it, and a spectrum counts once."""

import dataclasses
import logging

import numpy as np
import pytest
from astropy.io import fits

from jaxspec.io.combine import GridSpectrum, combine_stars, contradiction, header_position

P = 400


def row(path, star="HD 1234", seed=0, snr=30.0, **meta):
    noise = np.random.default_rng(seed).normal(size=P) / snr
    facts = {"path": path, "arms": ("a",), "frame": "unknown", "velocity": 10.0, "velocity_error": 0.2}
    return GridSpectrum(path, star, 1 + noise, np.full(P, snr**2), np.zeros(P, np.int32), {**facts, **meta})


def test_two_epochs_of_30_are_42_and_one_under_two_names_is_30(caplog):
    a, b = row("a.fits"), row("b.fits", seed=1)
    (both,) = combine_stars([a, b])
    assert both.meta["snr"] == pytest.approx(30 * 2**0.5, rel=0.02)
    assert np.std(both.flux) == pytest.approx(1 / 42.4, rel=0.1) and both.name == "HD 1234"
    with caplog.at_level(logging.WARNING):
        (once,) = combine_stars([a, dataclasses.replace(a, name="c", meta={**a.meta, "path": "c.fits"})])
    assert once.meta["snr"] == pytest.approx(30, rel=0.02) and "counted once" in caplog.text


def test_the_mean_is_not_better_than_snr_max():
    (both,) = combine_stars([row("a", snr=290.0), row("b", seed=1, snr=290.0)], snr_max=300.0)
    assert both.meta["snr"] == pytest.approx(300.0, rel=1e-3)
    assert both.meta["errors_raised"]["a"] == pytest.approx(290 * 2**0.5 / 300, rel=0.02)


@pytest.mark.parametrize(
    ("a", "b", "match"),
    [
        ({"position": (282.7, -6.2)}, {"position": (282.9, -6.2)}, "716 arcsec"),
        ({"position": (359.9999, 0.0)}, {"position": (0.0001, 0.0)}, None),
        ({"position": (10.0, 89.9)}, {"position": (10.5, 89.9)}, None),  # 3 arcsec, beside the pole
        ({"velocity": 23.0}, {"velocity": -40.0}, "63.0 km/s"),
        ({"velocity": 23.0}, {"velocity": -20.0}, None),  # half a year apart, in the Earth's frame
        (
            {"velocity": 23.0, "date": "2015-03-01T01:00:00.1"},
            {"velocity": -20.0, "date": "2015-03-01T04:00:00"},
            "43.0 km/s",
        ),
        (
            {"velocity": 23.0, "frame": "barycentric"},
            {"velocity": -20.0, "frame": "barycentric"},
            "43.0 km/s",
        ),
        ({"velocity": 0.0, "frame": "rest"}, {"velocity": 80.0, "frame": "barycentric"}, None),
        ({"velocity": 23.0, "velocity_error": 20.0}, {"velocity": -60.0}, None),
    ],
)
def test_positions_and_velocities(a, b, match):
    why = contradiction(row("a", **a), row("b", seed=1, **b))
    assert (why is None) if match is None else match in why


NAMELESS = [
    "NGC 6705",
    "UNKNOWN",
    "SKY",
    "sky_12",
    "",
    "M67",
    "Field 3",
    "n/a",
    "OBJECT",
    "star",
    "-",
    "NONE",
]


@pytest.mark.parametrize("name", NAMELESS)
def test_names_that_many_stars_share_need_positions(name, caplog):
    one, two = row("f/a.fits", name), row("f/b.fits", name, seed=1)
    with caplog.at_level(logging.WARNING):
        apart = combine_stars([one, two])
    assert [r.name for r in apart] == ["f/a.fits", "f/b.fits"] and "no single star" in caplog.text
    assert "no single star" in apart[0].meta["notes"][-1]
    here = {"position": (282.7, -6.2)}
    assert len(combine_stars([row("a", name, **here), row("b", name, seed=1, **here)])) == 1


@pytest.mark.parametrize(
    "name", ["HD 140283", "NGC 6705 1234", "18510662-0612442", "Sun", "alf Cen B", "TYC 1-2-3"]
)
def test_names_of_stars_are_enough(name):
    assert len(combine_stars([row("a", name), row("b", name, seed=1)])) == 1


@pytest.mark.parametrize(
    ("cards", "expected"),
    [
        ({"RA": 282.7, "DEC": -6.2}, (282.7, -6.2)),
        ({"RA": "15:43:02.3", "DEC": "-10:56:03.0"}, (235.7596, -10.9342)),
        ({"RA": "282.7", "DEC": "-6.2"}, (282.7, -6.2)),
        ({"RA": 0.0, "DEC": 0.0}, None),
        ({"RA": "unknown", "DEC": "?"}, None),
        ({"RA": 400.0, "DEC": 0.0}, None),
        ({"PLUG_RA": 1.0, "PLUG_DEC": 2.0}, (1.0, 2.0)),
        ({}, None),
    ],
)
def test_positions_of_headers(cards, expected):
    found = header_position(fits.Header(cards))
    assert found is None if expected is None else found == pytest.approx(expected, abs=1e-4)
