"""Amortised posteriors on disk: artefacts (`jaxspec.artefacts`) whose settings name the label set,
instrument, prior and network in full, so that a posterior can be used without the code that trained it.

Folders of format 1, whose arrays are in `weights.npz`, are still read.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxspec import artefacts
from jaxspec.amortised.amortised import AmortisedPosterior, Reference
from jaxspec.amortised.linear_fit import ForwardArray
from jaxspec.amortised.network import NetworkConfig, PosteriorNetwork
from jaxspec.errors import InputError
from jaxspec.instruments import Instrument
from jaxspec.labels import Label, LabelSet
from jaxspec.physics.emulator import Emulator
from jaxspec.physics.forward import ForwardModel, load_forward_model
from jaxspec.posterior.limits import Limits
from jaxspec.posterior.recalibration import Recalibration
from jaxspec.settings import build
from jaxspec.simulation.nuisances import NuisanceConfig
from jaxspec.simulation.prior import StellarPrior
from jaxspec.simulation.simulator import SpectrumModel

KIND, EMULATOR = "posterior", "emulator"
REMAKE = "give the folder `posterior` of experiments.train"
OLD_FORMAT, OLD_EMULATOR = "jaxspec amortised posterior", "emulator.npz"
# Fields of a posterior that are calibrated on simulations, after its training.
CALIBRATED: dict[str, type[Limits] | type[Recalibration]] = {
    "limits": Limits,
    "recalibration": Recalibration,
}
# Of a network's arrays: all but those of a forward model.
STORED = nnx.Not(ForwardArray)


def save_posterior(posterior: AmortisedPosterior, folder: str | os.PathLike, dtype: str = "float16") -> Path:
    """Write `posterior` into `folder` (made if need be); each file appears whole or not at all. A network
    with a linear fit takes its emulator along, unless that is the one in the package.

    Args:
        dtype: "float16" halves the size; the standardisations of inputs and labels stay float32. "float32" is
            exact.

    Returns: the folder.
    """
    if dtype not in ("float16", "float32"):
        raise InputError("save_posterior: dtype", repr(dtype), '"float16" or "float32"', "choose one")
    folder = Path(folder)
    arrays = {
        f"network/{path}": _narrow(array, dtype if is_weight else "float32")
        for path, array, is_weight in _network_arrays(posterior.network)
    }
    if posterior.reference is not None:
        for name in ("mean", "inverse_root"):
            arrays[f"reference/{name}"] = _narrow(getattr(posterior.reference, name), "float32")
    fit = posterior.network.linear_fit
    if fit is not None and isinstance(fit.forward, ForwardModel) and not _is_shipped(fit.forward):
        fit.forward.emulator.save(folder / EMULATOR)
    settings = {
        "label_set": [dataclasses.asdict(label) for label in posterior.label_set],
        "instrument": dataclasses.asdict(posterior.instrument),
        "network": dataclasses.asdict(posterior.network.config),
        "prior": None if posterior.prior is None else dataclasses.asdict(posterior.prior),
        "reference": None if posterior.reference is None else {"limit": posterior.reference.limit},
        "snr_limit": posterior.snr_limit,
        **{
            name: None if getattr(posterior, name) is None else dataclasses.asdict(getattr(posterior, name))
            for name in CALIBRATED
        },
        "dtype": dtype,
    }
    return artefacts.save(folder, KIND, arrays, settings, _domain(settings), posterior.provenance)


def load_posterior(folder: str | os.PathLike, forward: SpectrumModel | None = None) -> AmortisedPosterior:
    """Read what `save_posterior` wrote.

    Args:
        forward: what a network with a linear fit fits with; by default the stored emulator, or that in the
            package.

    Raises: InputError when a file is missing or is no posterior, is from a newer format, the weights do not
    match the configuration, or it has a field that this version does not know: the error names the field and
    the version that wrote it.
    """
    folder = Path(folder)
    stored = artefacts.load(folder, KIND, REMAKE, _of_format_1)
    file = str(folder / artefacts.CONFIG)
    with artefacts.understood(file, stored.config, REMAKE):
        settings = read_settings(stored.config["settings"])
    instrument, shape = settings.instrument, settings.network
    if shape.linear_fit is not None and forward is None:
        own = [folder / name for name in (EMULATOR, OLD_EMULATOR) if (folder / name).exists()]
        forward = (
            ForwardModel.create(Emulator.load(own[0]), instrument) if own else load_forward_model(instrument)
        )
    with artefacts.understood(file, stored.config, REMAKE):
        network = _empty_network(shape, settings.label_set, instrument.wavelength, forward)
    arrays = {name: array.astype(np.float32) for name, array in stored.arrays.items()}
    _set_network_arrays(
        network,
        {name[8:]: a for name, a in arrays.items() if name.startswith("network/")},
        str(folder / stored.config["arrays"]["file"]),
    )
    reference = None
    if settings.reference_limit is not None:
        mean, root = (arrays[f"reference/{name}"].astype(np.float64) for name in ("mean", "inverse_root"))
        reference = Reference(mean, root, settings.reference_limit)
    return AmortisedPosterior(
        network,
        instrument,
        settings.prior,
        reference,
        settings.snr_limit,
        **settings.calibrated,
        provenance=stored.config["provenance"],
    )


class StoredSettings(NamedTuple):
    """What `config.json` says of a posterior: all but its arrays. `calibrated` holds `limits` and
    `recalibration`, None where there is none."""

    label_set: LabelSet
    instrument: Instrument
    network: NetworkConfig
    prior: StellarPrior | None
    reference_limit: float | None
    snr_limit: float
    calibrated: dict[str, Any]


def read_settings(settings: Any) -> StoredSettings:
    """The settings of a stored posterior; fields younger than the file take their defaults.

    Raises: InputError naming a field that this version does not know, KeyError for one that is missing.
    """
    required = ("label_set", "instrument", "network", "prior", "reference", "snr_limit", "dtype")
    if not isinstance(settings, Mapping):
        raise InputError("settings", repr(settings), "entries by name", "copy the file again")
    artefacts.check_names(settings, (*required, *CALIBRATED))
    for name in required:
        if name not in settings:
            raise KeyError(name)
    reference, calibrated = settings["reference"], {}
    if reference is not None:
        artefacts.check_names(reference, ("limit",), "reference.")
    for name, kind in CALIBRATED.items():
        values = settings.get(name)
        if values is not None:
            artefacts.check_names(values, [field.name for field in dataclasses.fields(kind)], f"{name}.")
        calibrated[name] = None if values is None else kind.from_dict(values)
    return StoredSettings(
        LabelSet(tuple(Label.from_dict(label) for label in settings["label_set"])),
        build(Instrument, settings["instrument"], "instrument."),
        _network_config(settings["network"]),
        None if settings["prior"] is None else build(StellarPrior, settings["prior"], "prior."),
        None if reference is None else reference["limit"],
        settings["snr_limit"],
        calibrated,
    )


def load_weights(
    path: str | os.PathLike | Sequence[str | os.PathLike] | None = None,
) -> tuple[AmortisedPosterior, Path]:
    """A trained posterior and the folder it was read from: `path`, its sub-folder `posterior` where `path` is
    that of a training run, or (None) the weights in the package.

    Raises: InputError for a list of folders, and as `load_posterior`.
    """
    if not isinstance(path, str | os.PathLike | None):
        raise InputError("checkpoint", f"{path}", "one folder", "this command takes one network at a time")
    if path is None:
        folder = Path(str(resources.files("jaxspec.amortised") / "weights" / "giraffe"))
        if not folder.is_dir():
            raise InputError(
                "checkpoint",
                "no weights in this copy of the package",
                str(folder),
                "give checkpoint=FOLDER of a training run",
            )
        return load_posterior(folder), folder
    folder = Path(path).expanduser()
    folder = folder / "posterior" if (folder / "posterior").is_dir() else folder
    return load_posterior(folder), folder


def weights_file(folder: str | os.PathLike) -> Path:
    """The file of a stored posterior's arrays: its checksum says which weights a run used, whichever limits
    are calibrated later.

    Raises: InputError when the folder holds no posterior.
    """
    return artefacts.arrays_file(folder, KIND, REMAKE, older=_of_format_1)


def store_calibrated(
    found: Limits | Recalibration, folder: str | os.PathLike, facts: Mapping[str, Any]
) -> None:
    """Write limits or a recalibration, and facts of where they are from, into the configuration of a saved
    posterior; its weights stay as they are.

    Raises: InputError when the folder holds no posterior.
    """
    config = artefacts.read_config(folder, KIND, REMAKE, _of_format_1)
    name = next(name for name, kind in CALIBRATED.items() if isinstance(found, kind))
    config["settings"][name] = dataclasses.asdict(found)
    config["provenance"][name] = dict(facts)
    artefacts.write_config(folder, config)


def copy_weights(source: PosteriorNetwork, target: PosteriorNetwork, where: str) -> None:
    """Give `target` all arrays of `source`, its standardisations included; settings without arrays, such as
    `FlowConfig.min_bin`, may differ. Of two networks of which one has a linear fit only the encoder is taken.

    Raises: InputError naming `where` and the first array that differs, with both shapes.
    """
    whole = (target.linear_fit is None) == (source.linear_fit is None)
    arrays = _network_arrays(source if whole else source.encoder)
    _set_network_arrays(
        target if whole else target.encoder, {path: array for path, array, _ in arrays}, where
    )


def _domain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Labels, instrument and pixels of a posterior, and the S/N that its simulations had."""
    labels = LabelSet(tuple(Label.from_dict(label) for label in settings["label_set"]))
    fit = settings["network"].get("linear_fit")
    return artefacts.domain(
        labels,
        settings["instrument"]["name"],
        [(arm["low"], arm["high"]) for arm in settings["instrument"]["arms"]],
        None if fit is None else fit["nuisances"]["snr_range"],
    )


def _of_format_1(config: Any) -> dict[str, Any] | None:
    """The configuration of a folder of format 1 in the present order; None for any other."""
    if not isinstance(config, dict) or config.get("format") != OLD_FORMAT or config["format_version"] > 1:
        return None
    config = dict(config)
    new = {"kind": KIND, "format_version": artefacts.FORMAT_VERSION, "created_at": config.pop("created_at")}
    new |= {"versions": config.pop("versions")}
    weights, provenance = config.pop("weights"), config.pop("provenance")
    settings = {name: value for name, value in config.items() if not name.startswith("format")}
    settings["dtype"] = weights.pop("dtype")
    new |= {"domain": _domain(settings), "settings": settings}
    return {**new, "provenance": provenance, "arrays": weights}


def _network_config(values: Any) -> NetworkConfig:
    fit = values.get("linear_fit") if isinstance(values, Mapping) else None
    if isinstance(fit, Mapping) and "nuisances" in fit:
        # Fields younger than the file take the defaults of all nuisances, not those of a fit, which has none.
        nuisances = build(NuisanceConfig, fit["nuisances"], "network.linear_fit.nuisances.")
        values = {**values, "linear_fit": {**fit, "nuisances": nuisances}}
    return build(NetworkConfig, values, "network.")


def _empty_network(shape, label_set, grid, forward):
    """A network whose arrays are all to be set but the forward model's: what random numbers it would begin
    with is not worked out, which takes seconds."""
    network = nnx.eval_shape(
        lambda: PosteriorNetwork(shape, label_set, grid, rngs=nnx.Rngs(0), forward=forward)
    )
    if network.linear_fit is not None:
        for variable, leaf in zip(network.linear_fit.arrays, jax.tree.leaves(forward), strict=True):
            variable.set_value(jnp.asarray(leaf))
    return network


def _is_shipped(forward: ForwardModel) -> bool:
    shipped = Emulator.load()
    return forward.emulator.summary == shipped.summary and np.array_equal(forward.emulator.mean, shipped.mean)


def _network_arrays(network):
    for path, variable in nnx.to_flat_state(nnx.state(network, STORED)):
        yield "/".join(str(part) for part in path), np.asarray(variable[...]), isinstance(variable, nnx.Param)


def _set_network_arrays(network, arrays, where):
    state = nnx.state(network, STORED)
    flat = nnx.to_flat_state(state)
    named = {"/".join(str(part) for part in path): variable for path, variable in flat}
    found = {name: f"shape {np.shape(array)}" for name, array in arrays.items()}
    expected = {name: f"shape {variable.shape}" for name, variable in named.items()}
    if found != expected:
        name = min(name for name in found | expected if found.get(name) != expected.get(name))
        raise InputError(
            f"{where}, array {name}",
            found.get(name, "no such array"),
            expected.get(name, "no such array"),
            "use the configuration and the jaxspec it was trained with",
        )
    for name, variable in named.items():
        variable.set_value(jnp.asarray(arrays[name], variable.dtype))
    nnx.update(network, state)


def _narrow(array, dtype):
    array = np.asarray(array, np.float32)
    narrow = array.astype(dtype)
    if not np.isfinite(narrow).all():
        # float16 ends at 65,504; a weight beyond it is kept exact.
        return array
    return narrow
