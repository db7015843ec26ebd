"""Real files in, results out: one reader per survey product, one store for large sets, one writer for
results."""

from jaxspec.io.collection import GridSpectrum, Template, find_files, iter_spectra, read_on_grid, read_spectra
from jaxspec.io.interchange import from_specutils, register_loaders, to_specutils
from jaxspec.io.parts import SeveralSpectra
from jaxspec.io.quality import Quality
from jaxspec.io.results import read_table, write_datatree, write_table
from jaxspec.io.spectrum import Assume, SpectrumFile, read_spectrum
from jaxspec.io.store import SpectraStore

__all__ = [
    "Assume",
    "GridSpectrum",
    "Quality",
    "SeveralSpectra",
    "SpectraStore",
    "SpectrumFile",
    "Template",
    "find_files",
    "from_specutils",
    "iter_spectra",
    "read_on_grid",
    "read_spectra",
    "read_spectrum",
    "read_table",
    "register_loaders",
    "to_specutils",
    "write_datatree",
    "write_table",
]
