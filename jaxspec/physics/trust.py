"""Which wavelengths the synthesis can be trusted at: where it fits the observed Sun.

A few dozen wrong or missing oscillator strengths carry most of the misfit of any list (Heiter et al. 2021
flag many of them), and they pull temperature, gravity and metallicity the same way in every star. Stretches
where the solar spectrum at HR10's resolution is missed by more than 3 % of the continuum are listed in
`data/untrusted.csv` (see `physics.data.build`); a fit gives no weight to the observed pixels there. No
clean solar spectrum was at hand for HR21, so nothing is listed there.
"""

from functools import lru_cache
from importlib import resources

import numpy as np
from jaxtyping import Bool

from jaxspec.instruments import Instrument
from jaxspec.spectra import vacuum_to_air


def untrusted_intervals() -> np.ndarray:
    """Air wavelengths `[n, 2]` (A) between which the synthesis misses the Sun."""
    text = (resources.files("jaxspec.physics.data") / "untrusted.csv").read_text()
    rows = [line.split(",")[:2] for line in text.splitlines() if line and line[0].isdigit()]
    return np.array(rows, float).reshape(-1, 2)


@lru_cache(maxsize=8)
def trusted_pixels(instrument: Instrument) -> Bool[np.ndarray, " p"]:
    """True for each pixel of an instrument that lies outside all untrusted intervals."""
    wavelength = instrument.wavelength if instrument.medium == "air" else vacuum_to_air(instrument.wavelength)
    low, high = untrusted_intervals().T
    inside = (wavelength[:, None] >= low) & (wavelength[:, None] <= high)
    return ~inside.any(axis=1)
