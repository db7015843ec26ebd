"""How to say to a reader what a file does not say: the argument in Python, the setting of a command."""

from typing import Any


def argument(name: str, example: Any) -> str:
    """Text for an error that asks for an argument, by all its names: `unit='nm'` in Python, and
    `reader.unit=nm` or `--unit nm` in a command."""
    option = name.replace("_", "-")
    return f"{name}={example!r} (to a command: reader.{name}={example} or --{option} {example})"
