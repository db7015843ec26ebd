"""Chemically distinct populations: which stars were born in the same place, from labels with errors."""

from jaxspec.populations.members import Members, Model
from jaxspec.populations.methods import METHODS, fit, load, save
from jaxspec.populations.stars import Stars

__all__ = ["METHODS", "Members", "Model", "Stars", "fit", "load", "save"]
