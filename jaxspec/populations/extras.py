"""Libraries of the extra `populations`, imported when they are needed."""

from __future__ import annotations

import importlib
from typing import Any

from jaxspec.errors import InputError


def optional(name: str, package: str) -> Any:
    """The module `name` of an optional `package`.

    Raises: InputError naming the extra that installs it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        fix = "pip install 'jaxspec[populations]'"
        raise InputError(f"package {package}", "not installed", "an installation of it", fix) from error


def scikit_learn(part: str) -> Any:
    """A module of scikit-learn, such as `cluster`."""
    return optional(f"sklearn.{part}", "scikit-learn")
