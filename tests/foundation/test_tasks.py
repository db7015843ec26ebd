"""What is shown in each task."""

import numpy as np

from jaxspec.foundation.table import Table
from jaxspec.foundation.tasks import standard_tasks

NAMES = (*(f"bp_{i}" for i in range(1, 39)), *(f"rp_{i}" for i in range(1, 40)), "xp_colour", "g", "bp_rp")


def test_random_tokens_differ_from_star_to_star():
    task = standard_tasks(NAMES)["random_64"]
    values = np.random.default_rng(0).standard_normal((50, len(NAMES)))
    stars = Table(NAMES, values, np.ones_like(values), np.arange(50))
    shown = task.shown(stars, 1)
    seen = np.isfinite(shown.values)
    assert (seen.sum(1) == 64).all() and len(np.unique(seen, axis=0)) == 50
    assert (np.isfinite(shown.errors) == seen).all()
    np.testing.assert_array_equal(task.shown(stars, 1).values, shown.values)


def test_tasks_ask_for_nothing_that_is_given():
    tasks = standard_tasks(NAMES)
    assert {"xp", "first_five", "rp_alone", "labels_to_xp", "bp_from_rp", "a_k_from_colours"} <= set(tasks)
    for task in tasks.values():
        assert not set(task.given) & set(task.asked), task.name
    assert "bp_rp" not in tasks["xp"].given and tasks["rp_alone"].given == NAMES[38:77]
