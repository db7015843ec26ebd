"""Line lists from files: VALD, Kurucz, MOOG and Turbospectrum."""

from jaxspec.physics.linelists.read import read_line_list

__all__ = ["read_line_list"]
