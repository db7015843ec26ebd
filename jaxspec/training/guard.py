"""Stop at the first loss that is not finite, and keep the evidence."""

import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree


class NonFiniteLossError(FloatingPointError):
    """The loss became infinite or NaN. `step` says when, `path` where the batch was saved."""

    def __init__(self, message: str, *, step: int, path: Path):
        super().__init__(message)
        self.step, self.path = step, path


def raise_non_finite(loss: float, step: int, batch: PyTree, directory: Path | None) -> None:
    """Save the batch of `step` as an .npz file and raise `NonFiniteLossError` naming it and its suspicious
    arrays.
    """
    folder = Path(tempfile.mkdtemp(prefix="jaxspec-")) if directory is None else directory
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"nonfinite_batch_step{step:07d}.npz"
    arrays: dict[str, Any] = {}
    for where, leaf in jax.tree_util.tree_leaves_with_path(batch):
        if isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        arrays[jax.tree_util.keystr(where, simple=True, separator=".") or "batch"] = np.asarray(leaf)
    np.savez(path, step=step, loss=loss, **{f"batch.{name}": x for name, x in arrays.items()})
    bad = []
    for name, x in arrays.items():
        if x.dtype.kind == "f" and not np.isfinite(x).all():
            rows = np.unique(np.argwhere(~np.isfinite(x))[:, 0])[:5].tolist() if x.ndim else []
            bad.append(f"{name} (rows {', '.join(map(str, rows))}, ...)")
    suspects = (
        f"its arrays with values that are not finite: {'; '.join(bad)}"
        if bad
        else "its arrays are all finite"
    )
    raise NonFiniteLossError(
        f"loss {loss} at step {step}; the batch is saved in {path}; {suspects}", step=step, path=path
    )
