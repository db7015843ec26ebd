"""Ordinary methods find an ordinary relation, with gaps in their inputs."""

import pytest

from jaxspec.foundation.baselines import BASELINES, predict
from jaxspec.foundation.tasks import Task
from tests.foundation.small import NAMES, universe

pytest.importorskip("sklearn")


@pytest.mark.parametrize("name", BASELINES)
def test_baselines_beat_the_mean(name):
    train, test = universe(800, 0, missing=0.05), universe(300, 1)
    task = Task("a", NAMES[:5], ("teff", "logg"))
    residual = predict(name, task, train, test, max_iter=60) - test.columns(task.asked).values
    assert (residual.std(0) < 0.7 * test.columns(task.asked).values.std(0)).all()
