"""Model atmospheres from files: MARCS, ATLAS9, ATLAS12 and MOOG."""

from jaxspec.physics.atmospheres.read import read_atmosphere
from jaxspec.physics.atmospheres.text import AtmosphereFile

__all__ = ["AtmosphereFile", "read_atmosphere"]
