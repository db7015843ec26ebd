"""A finite data set as an endless, resumable sequence of shuffled batches."""

import jax
import numpy as np
from jaxtyping import PyTree

from jaxspec.errors import InputError
from jaxspec.training.parallel import batch_size


class ArraySource:
    """`source(step)` is batch number `step` of endlessly repeated, freshly shuffled passes over `arrays`.

    Which rows are in a batch follows from (seed, step) alone, so that a resumed run sees what an unbroken one
    would have seen. Each pass drops the remainder that does not fill a batch; the next pass shuffles anew, so
    no row is left out for long.

    `arrays` is a pytree of host arrays with one row per example; anything that can be indexed by an array of
    rows will do (a memory map, say).
    """

    def __init__(self, arrays: PyTree, size: int, *, seed: int = 0):
        self.arrays, self.size, self.seed = arrays, size, seed
        self.n_rows = batch_size(arrays)
        if not 1 <= size <= self.n_rows:
            raise InputError(
                "ArraySource: size",
                f"{size}",
                f"1 to {self.n_rows}, the number of examples",
                "use a smaller batch or more data",
            )
        self.batches_per_epoch = self.n_rows // size
        self._epoch, self._order = -1, np.empty(0, int)

    def rows(self, step: int) -> np.ndarray:
        """The rows of batch number `step`."""
        epoch, position = divmod(step, self.batches_per_epoch)
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = np.random.default_rng([self.seed, epoch]).permutation(self.n_rows)
        return self._order[position * self.size : (position + 1) * self.size]

    def __call__(self, step: int) -> PyTree:
        rows = self.rows(step)
        return jax.tree.map(lambda x: np.asarray(x[rows]), self.arrays)
