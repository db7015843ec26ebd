"""The errors that a survey quotes for its stars.

Errors follow temperature, gravity and metallicity: hot, cool and metal-poor stars have larger ones. What a
survey would report for a star that it has not seen scatters by what it quotes for stars like it.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.spatial import cKDTree

from jaxspec.surveys.observations import Survey
from jaxspec.surveys.scales import Scales

MOST_ROWS = 5000
NEIGHBOURS = 30
# Stars in one go; memory grows with them times the neighbours.
_BLOCK = 10_000


class QuotedErrors(NamedTuple):
    """Some rows of a survey, evenly over its table: the labels that trends run along, `inputs [m, p]`, on the
    survey's own scale in the model's coordinates (see `Scales.input_matrix`), and the quoted `variance
    [m, l]` in model units, NaN where a label is missing."""

    inputs: Float[np.ndarray, "m p"]
    variance: Float[np.ndarray, "m l"]

    @staticmethod
    def of(survey: Survey, scales: Scales) -> "QuotedErrors":
        """Of a survey's rows; where a label that trends run along is missing, its median stands in."""
        rows = slice(None, None, -(-len(survey) // MOST_ROWS))
        values = scales.to_model(np.asarray(survey.values[rows], float))
        variance = np.diagonal(np.asarray(survey.covariance[rows], float), axis1=1, axis2=2) / scales.step**2
        middle = np.array([np.median(x[~np.isnan(x)]) if (~np.isnan(x)).any() else 0.0 for x in values.T])
        inputs = np.where(np.isnan(values), middle, values) @ scales.input_matrix.T
        return QuotedErrors(inputs, np.where(np.isnan(values), np.nan, variance))

    @property
    def typical(self) -> Float[np.ndarray, " l"]:
        """Median variance of each label, NaN where it is not measured."""
        columns = (x[~np.isnan(x)] for x in self.variance.T)
        return np.array([np.median(x) if len(x) else np.nan for x in columns])

    def near(self, inputs: Float[np.ndarray, "n p"]) -> Float[np.ndarray, "n l"]:
        """Mean variance of the rows nearest to stars at `inputs`: with it a report is given its error before
        its quoted one is known. Where none of them has a label, that of all rows; 0 where no row has it."""
        count = np.sum(~np.isnan(self.variance), axis=0)
        overall = np.nansum(self.variance, axis=0) / np.maximum(count, 1)
        k = min(NEIGHBOURS, len(self.inputs))
        if not self.inputs.shape[1]:
            return np.broadcast_to(overall, (len(inputs), len(overall)))
        tree = cKDTree(self.inputs)
        found = []
        for begin in range(0, len(inputs), _BLOCK):
            index = tree.query(inputs[begin : begin + _BLOCK], [*range(1, k + 1)])[1]
            variance = self.variance[index]
            number = np.sum(~np.isnan(variance), axis=1)
            mean = np.nansum(variance, axis=1) / np.maximum(number, 1)
            found.append(np.where(number > 0, mean, overall))
        return np.concatenate(found) if found else np.empty((0, len(overall)))
