"""Tasks of the model: which quantities are given, and which are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jaxspec.foundation.table import ATMOSPHERE, COLOURS, Table
from jaxspec.foundation.xp import ARMS, COLOUR

PHOTOMETRY = ("g", *COLOURS)


@dataclass(frozen=True)
class Task:
    """One question.

    Attributes:
        name: by which it is reported.
        given: quantities that are shown.
        asked: quantities that are asked for.
        n_random: if not None, so many of the given ones, drawn anew for each star, are shown.
        baselines: of which task the baselines are compared with; none: its own.
    """

    name: str
    given: tuple[str, ...]
    asked: tuple[str, ...]
    n_random: int | None = None
    baselines: str | None = None

    def shown(self, stars: Table, seed: int = 0) -> Table:
        """The table of some stars with the given quantities alone."""
        table = stars.columns(self.given)
        if self.n_random is None:
            return table
        order = np.argsort(np.random.default_rng(seed).random(table.values.shape), 1)
        hidden = order >= self.n_random
        return table._replace(
            values=np.where(hidden, np.nan, table.values), errors=np.where(hidden, np.nan, table.errors)
        )


def coefficients(names: Sequence[str], arm: str, first: int | None = None) -> tuple[str, ...]:
    """The coefficients of one arm among `names`, or the `first` ones of them."""
    found = [name for name in names if name.startswith(f"{arm}_") and name.rpartition("_")[2].isdigit()]
    return tuple(found[:first])


def standard_tasks(names: Sequence[str], labels: Sequence[str] = ATMOSPHERE) -> dict[str, Task]:
    """The tasks of Leung & Bovy (2023, arXiv:2308.10944), on these quantities."""
    bp, rp = (coefficients(names, arm) for arm in ARMS)
    xp = (*bp, *rp, COLOUR)
    first = tuple(name for arm in ARMS for name in coefficients(names, arm, 5))
    labels = tuple(labels)
    tasks = (
        Task("xp", xp, labels),
        Task("xp_photometry", (*xp, *PHOTOMETRY), labels),
        Task("random_64", xp, labels, 64, "xp"),
        Task("first_five", (*first, COLOUR, *COLOURS), labels),
        Task("rp_alone", rp, labels),
        Task("labels_to_xp", (*labels, "a_k"), first),
        Task("labels_colours_to_xp", (*labels, "a_k", *COLOURS), first),
        Task("bp_from_rp", rp, bp),
        Task("rp_from_bp", bp, rp),
        Task("logg_from_labels", ("teff", "fe_h", "alpha_m", *COLOURS), ("logg",)),
        Task("a_k_from_colours", ("teff", *COLOURS), ("a_k",)),
        Task("prior", (), labels),
    )
    return {task.name: task for task in tasks}
