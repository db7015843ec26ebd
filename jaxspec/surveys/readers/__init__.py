"""Tables of surveys, read into catalogues: column maps in plain entries, and the layouts of known surveys."""

from jaxspec.surveys.readers.layouts import LAYOUTS
from jaxspec.surveys.readers.spec import FlagRule, Quantity, SurveysFile, TableSpec, parse_file, parse_table
from jaxspec.surveys.readers.table import label_names, read_survey

__all__ = [
    "LAYOUTS",
    "FlagRule",
    "Quantity",
    "SurveysFile",
    "TableSpec",
    "label_names",
    "parse_file",
    "parse_table",
    "read_survey",
]
