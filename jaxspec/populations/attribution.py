"""Which labels decide to which group a star belongs: Shapley values of its memberships.

The Shapley value of a label is its mean effect on the probability over all orders in which the labels can
become known (Shapley 1953; as attributions: Lundberg & Lee 2017). A label that is not known yet is missing,
which a deconvolved mixture takes exactly, so nothing is sampled or filled in: the values of a star's labels
add up to its probability less that of a star of which nothing is known, to rounding.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from jaxspec.errors import InputError
from jaxspec.populations.mixture_model import MixtureModel
from jaxspec.populations.stars import Stars

MOST_LABELS = 10  # 2^10 sets of known labels


class Attribution(NamedTuple):
    """Effects of the labels `[n, g, l]` on the probabilities, and those of a star without labels `[g]`."""

    labels: tuple[str, ...]
    effect: Float[np.ndarray, "n g l"]
    base: Float[np.ndarray, " g"]

    @property
    def importance(self) -> Float[np.ndarray, "g l"]:
        """Mean size of each label's effect on each group's probability."""
        return np.abs(self.effect).mean(0)


def attribute(model: Any, stars: Stars) -> Attribution:
    """Exact Shapley values for every star, group and label of a mixture.

    Raises: InputError for a model of another method, and for more than `MOST_LABELS` labels.
    """
    if not isinstance(model, MixtureModel):
        fix = "fit method=mixture"
        raise InputError("model", type(model).__name__, "a mixture: it takes missing labels exactly", fix)
    size = len(model.labels)
    if size > MOST_LABELS:
        fix = "choose fewer labels"
        raise InputError("labels", f"{size}", f"at most {MOST_LABELS} to attribute to", fix)
    values, covariance = model.scale.apply(stars.select(model.labels))
    known = [
        model.probabilities(np.where([bool(s >> j & 1) for j in range(size)], values, np.nan), covariance)
        for s in range(2**size)
    ]
    effect = np.zeros((*known[0].shape, size))
    for j in range(size):
        for s in range(2**size):
            if not s >> j & 1:
                before = s.bit_count()
                weight = 1.0 / (size * math.comb(size - 1, before))
                effect[:, :, j] += weight * (known[s | 1 << j] - known[s])
    return Attribution(model.labels, effect, known[0][0])
