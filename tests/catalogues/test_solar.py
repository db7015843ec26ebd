"""Solar scales agree with the papers and with each other where they were taken over."""

import pytest

from jaxspec.catalogues.solar import ASPLUND2005, GREVESSE2007, SOLAR_SCALES, solar_scale
from jaxspec.errors import InputError


def test_solar_scales_agree_where_papers_took_them_over():
    assert ASPLUND2005 == GREVESSE2007
    assert all(len(scale) == 7 and all(4 < v < 8 for v in scale.values()) for scale in SOLAR_SCALES.values())
    with pytest.raises(InputError, match="grevesse2007"):
        solar_scale("grevesse2008")
    with pytest.raises(InputError, match="mg_h"):
        solar_scale({"mg_h": 15.0})
