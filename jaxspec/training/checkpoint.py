"""Checkpoints: one small wrapper around Orbax. A checkpoint is either whole or not there."""

import logging
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import PyTree

from jaxspec.errors import InputError

# Orbax narrates every save at level INFO and warns of layouts that are of no concern to the reader here.
logging.getLogger("absl").setLevel(logging.ERROR)


class Checkpointer:
    """Numbered checkpoints of a pytree with JSON metadata in a folder.

    Orbax writes each into a temporary folder and renames it when complete, so a process killed in the middle
    of a save leaves the one before. The newest `keep` stay.
    """

    def __init__(self, directory: str | Path, *, keep: int = 2):
        self.directory = Path(directory).absolute()
        self._manager = ocp.CheckpointManager(
            self.directory,
            options=ocp.CheckpointManagerOptions(
                max_to_keep=keep, create=True, cleanup_tmp_directories=True, enable_async_checkpointing=False
            ),
        )

    def latest(self) -> int | None:
        """The step of the newest checkpoint, or None."""
        return self._manager.latest_step()

    def save(self, step: int, tree: PyTree, metadata: dict[str, Any]) -> None:
        """Write `tree` (arrays and keys) and `metadata` (what JSON can hold) as checkpoint number `step`."""
        arrays = _to_arrays(tree)
        meta = {"shapes": {name: list(x.shape) for name, x in arrays.items()}, "user": metadata}
        self._manager.save(
            step,
            args=ocp.args.Composite(tree=ocp.args.StandardSave(arrays), meta=ocp.args.JsonSave(meta)),
            force=True,
        )
        self._manager.wait_until_finished()

    def metadata(self, step: int | None = None) -> dict[str, Any]:
        """The metadata of a checkpoint (the newest by default)."""
        return self._read_meta(self._existing(step))["user"]

    def restore(self, template: PyTree, step: int | None = None) -> PyTree:
        """The tree of a checkpoint (the newest by default), with the structure, shapes and types of
        `template`.

        Raises `InputError` if the checkpoint holds other arrays than the template, naming them.
        """
        step = self._existing(step)
        wanted = _to_arrays(template)
        found = {name: tuple(shape) for name, shape in self._read_meta(step)["shapes"].items()}
        expected = {name: x.shape for name, x in wanted.items()}
        if found != expected:
            name = min(name for name in found | expected if found.get(name) != expected.get(name))
            raise InputError(
                f"{self.directory}, checkpoint {step}, array {name}",
                f"shape {found[name]}" if name in found else "no such array",
                f"shape {expected[name]}" if name in expected else "no such array",
                "use the configuration it was trained with",
            )
        # Restored to the host: where the arrays then live is the caller's business, not the checkpoint's.
        args = ocp.args.Composite(tree=ocp.args.StandardRestore(wanted))
        return _from_arrays(self._manager.restore(step, args=args)["tree"], template)

    def _read_meta(self, step: int) -> dict[str, Any]:
        return self._manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))["meta"]

    def close(self) -> None:
        """Release Orbax's threads."""
        self._manager.close()

    def _existing(self, step: int | None) -> int:
        if step is None:
            step = self.latest()
        if step is None or step not in self._manager.all_steps():
            raise InputError(
                str(self.directory),
                f"checkpoints {list(self._manager.all_steps())}",
                "a checkpoint" if step is None else f"checkpoint {step}",
                "check the folder",
            )
        return step


def _names(tree: PyTree) -> list[str]:
    """One name per leaf that is also a good file name."""
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
    return [jax.tree_util.keystr(path, simple=True, separator=".") for path in paths]


def _to_arrays(tree: PyTree) -> dict[str, np.ndarray]:
    def plain(x: Any) -> np.ndarray:
        if isinstance(x, jax.Array) and jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            x = jax.random.key_data(x)
        return np.asarray(x)

    return {name: plain(x) for name, x in zip(_names(tree), jax.tree.leaves(tree), strict=True)}


def _from_arrays(arrays: dict[str, np.ndarray], template: PyTree) -> PyTree:
    def like(x: np.ndarray, old: Any) -> Any:
        if isinstance(old, jax.Array) and jax.dtypes.issubdtype(old.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(jax.numpy.asarray(x), impl=jax.random.key_impl(old))
        return jax.numpy.asarray(x)

    leaves, structure = jax.tree.flatten(template)
    return jax.tree.unflatten(
        structure, [like(arrays[n], old) for n, old in zip(_names(template), leaves, strict=True)]
    )
