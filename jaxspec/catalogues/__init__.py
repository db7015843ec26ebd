"""Survey tables in, one `Catalogue` out: column maps, known layouts, flags, solar scales, cross-match."""

from jaxspec.catalogues.catalogue import Catalogue
from jaxspec.catalogues.crossmatch import Match, crossmatch
from jaxspec.catalogues.identifiers import Identifiers, identifiers
from jaxspec.catalogues.label_table import join, read_label_table
from jaxspec.catalogues.layouts import LAYOUTS
from jaxspec.catalogues.layouts.gaia_eso import read_gaia_eso
from jaxspec.catalogues.read import label_names, read_survey
from jaxspec.catalogues.spec import FlagRule, Quantity, SurveysFile, TableSpec, parse_file, parse_table

__all__ = [
    "LAYOUTS",
    "Catalogue",
    "FlagRule",
    "Identifiers",
    "Match",
    "Quantity",
    "SurveysFile",
    "TableSpec",
    "crossmatch",
    "identifiers",
    "join",
    "label_names",
    "parse_file",
    "parse_table",
    "read_gaia_eso",
    "read_label_table",
    "read_survey",
]
