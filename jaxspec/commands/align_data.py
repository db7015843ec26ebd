"""Source and target of an alignment: simulated pairs, Gaia's XP spectra, or arrays of the user's."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxspec.datasets import Dataset
from jaxspec.errors import InputError
from jaxspec.labels import LabelSet, label_set
from jaxspec.surveys.adapt import Augment
from jaxspec.surveys.pairs import KINDS, PairConfig, make_pair

SIMULATED, XP = "simulated", "xp"
XP_RANGES = {"near": (-0.05, 0.05), "far": (0.25, 3.0)}
"""A_K of targeting [mag] of the two halves of the XP test."""


class AlignData(NamedTuple):
    """Stars of both surveys to train with and to judge by.

    Attributes:
        source, target: labels of the target train the ceiling, and nothing else.
        source_test, target_test: held out. Without labels of the target nothing is scored.
        label_set: what is inferred.
        bridge: makes stars of the source look like the target's, where physics says how.
        scored: whether the target's labels are known.
    """

    source: Dataset
    target: Dataset
    source_test: Dataset
    target_test: Dataset
    label_set: LabelSet
    bridge: Augment | None = None
    scored: bool = True


def load_data(source: str, target: str, pair: PairConfig, seed: int) -> AlignData:
    """Both surveys by name: `simulated` and a kind of difference (`jaxspec.surveys.pairs.KINDS`), `xp:near`
    and `xp:far`, or two `.npz` files.

    A file holds `flux` and `ivar` [n, p] on one grid in both, normalised alike, and for a source, and a
    target that is to be scored, `labels` [n, l] and `names` of the labels.

    Raises: InputError for anything else.
    """
    if source == SIMULATED:
        if target not in KINDS:
            raise InputError("target", repr(target), f"one of {KINDS}", "write target=instrument")
        made = make_pair(PairConfig(**{**vars(pair), "kind": target}))
        return AlignData(*made)
    if source.startswith(f"{XP}:") and target.startswith(f"{XP}:"):
        return _xp(source.split(":")[1], target.split(":")[1], seed)
    if source.endswith(".npz") and target.endswith(".npz"):
        return _files(source, target, seed)
    found = f"source={source} target={target}"
    expected = "simulated and a kind, xp:near and xp:far, or two .npz files"
    raise InputError("source, target", found, expected, "write source=simulated target=instrument")


def _xp(near: str, far: str, seed: int) -> AlignData:
    from jaxspec.catalogues.xp_apogee import GAIA_XP_SAMPLED, XP_LABELS, read_xp_apogee
    from jaxspec.surveys.reddening import Reddening, extinction_curves

    for name in (near, far):
        if name not in XP_RANGES:
            raise InputError(
                "xp", repr(name), f"one of {list(XP_RANGES)}", "write source=xp:near target=xp:far"
            )
    stars = read_xp_apogee()
    parts: list[Any] = []
    for name in (near, far):
        low, high = XP_RANGES[name]
        parts.append(stars.rows(np.flatnonzero((stars.a_k > low) & (stars.a_k < high))).data)
    # Errors of the labels are a few kelvin and hundredths of a dex: below what XP can tell.
    source, target = (part._replace(errors=None) for part in parts)
    curves = extinction_curves(GAIA_XP_SAMPLED.wavelength)
    return AlignData(*_split(source, target, seed), XP_LABELS, Reddening(curves))


def _files(source: str, target: str, seed: int) -> AlignData:
    parts: list[Dataset] = []
    names: tuple[str, ...] | None = None
    scored = True
    for path in (source, target):
        if not Path(path).is_file():
            raise InputError(path, "no such file", "a .npz file of arrays", "check the path")
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        missing = {"flux", "ivar"} - set(arrays)
        if path == source:
            missing |= {"labels", "names"} - set(arrays)
        if missing:
            raise InputError(path, f"arrays {sorted(arrays)}", f"also {sorted(missing)}", "add them")
        flux, ivar = arrays["flux"].astype(np.float32), arrays["ivar"].astype(np.float32)
        if "labels" in arrays:
            these = tuple(str(name) for name in arrays.get("names", names or ()))
            if names is not None and these != names:
                raise InputError(
                    f"{path}, names", f"{these}", f"{names} as in the source", "order them alike"
                )
            names = these
            labels = arrays["labels"].astype(np.float32)
        else:
            scored = False
            labels = np.tile(parts[0].labels.mean(axis=0), (len(flux), 1))
        parts.append(Dataset(labels, flux, ivar))
    assert names is not None
    return AlignData(*_split(parts[0], parts[1], seed), label_set(*names), scored=scored)


def _split(source: Dataset, target: Dataset, seed: int) -> tuple[Dataset, Dataset, Dataset, Dataset]:
    """Train and test of both: a fifth of the source, two fifths of the target are held out; always the same
    stars for a seed."""
    pieces = []
    for data, share in ((source, 0.2), (target, 0.4)):
        order = np.random.default_rng([seed, 11]).permutation(data.n_stars)
        n = int(share * data.n_stars)
        pieces.append((data.rows(np.sort(order[n:])), data.rows(np.sort(order[:n]))))
    (train, held), (target_train, target_held) = pieces
    return train, target_train, held, target_held
