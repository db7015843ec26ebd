"""The column layouts of published surveys, as completions of a table's entry: one module a survey."""

from collections.abc import Callable

from astropy.table import Table

from jaxspec.catalogues.layouts.apogee import apogee
from jaxspec.catalogues.layouts.gaia_eso import gaia_eso
from jaxspec.catalogues.layouts.gaia_xp import gaia_xp
from jaxspec.catalogues.layouts.galah import galah
from jaxspec.catalogues.layouts.lamost import lamost
from jaxspec.catalogues.spec import TableSpec

LAYOUTS: dict[str, Callable[[TableSpec, Table], TableSpec]] = {
    "apogee": apogee,
    "galah": galah,
    "lamost": lamost,
    "gaia_eso": gaia_eso,
    "gaia_xp": gaia_xp,
}
