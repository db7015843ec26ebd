"""Weights as files that run without JAX, checked where they are written and where they are read."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export as jax_export

from jaxspec import artefacts
from jaxspec.amortised.amortised import AmortisedPosterior
from jaxspec.amortised.storage import save_posterior
from jaxspec.errors import InputError
from jaxspec.physics.emulator import Emulator
from jaxspec.runs import atomically
from jaxspec.serving import parity
from jaxspec.serving.convert import to_onnx
from jaxspec.serving.graphs import DRAWS, STARS, Graph, emulator_graphs, posterior_graphs

KIND, REMAKE = "export", "make one with jaxspec export"
FILES, PARITY = "files", "parity"
PLATFORMS = ("cpu", "cuda")
POSTERIOR = "posterior"  # the weights as jaxspec reads them, beside the graphs


def export_posterior(posterior: AmortisedPosterior, folder: str | os.PathLike, source: str = "") -> Path:
    """Write a posterior's graphs (see `posterior_graphs`) as ONNX and StableHLO, its weights, and what they
    are in `config.json`. Nothing is written where the files differ from the model (see `parity`).

    Returns: the folder.

    Raises: InputError for what cannot be exported, without the extra `export`, and where files differ.
    """
    if posterior.network.linear_fit is not None:
        raise InputError(
            "model",
            "a network with a linear fit inside, as the weights in the package have",
            "one without: ONNX Runtime does not run the fit's translation yet",
            "train one with experiment=giraffe_robust, or serve the model itself with jaxspec serve",
        )
    graphs = posterior_graphs(posterior)
    label_set, instrument = posterior.label_set, posterior.instrument
    inputs = parity.posterior_inputs(posterior)
    ranges = {"labels": label_set.high - label_set.low}
    models, stable = _translate(graphs)
    report = _compare(
        parity.chain, graphs, models, stable, inputs, ranges, few=lambda x: _first(x, parity.N_STARS // 16)
    )
    folder = Path(folder)
    save_posterior(posterior, folder / POSTERIOR, "float32")
    settings = {
        "labels": [
            {"name": x.name, "unit": x.unit, "low": x.low, "high": x.high, "description": x.description}
            for x in label_set
        ],
        "instrument": {
            "name": instrument.name,
            "medium": instrument.arms[0].medium,
            "arms": [{"name": a.name, "low": a.low, "high": a.high, "step": a.step} for a in instrument.arms],
            "n_pixels": instrument.n_pixels,
        },
        "recalibrated": False,
    }
    domain = artefacts.domain(label_set, instrument.name, [(a.low, a.high) for a in instrument.arms])
    return _write(folder, graphs, models, stable, settings, report, domain, {"source": source})


def export_emulator(emulator: Emulator, folder: str | os.PathLike, source: str = "") -> Path:
    """As `export_posterior`, for an emulator (see `emulator_graphs`)."""
    graphs, label_set = emulator_graphs(emulator), emulator.label_set
    rng = np.random.default_rng(0)
    low, high = label_set.low, label_set.high
    inputs = {
        "labels": rng.uniform(low, high, (parity.N_STARS, len(label_set))).astype(np.float32),
        "vmic": rng.uniform(0.5, 3.0, parity.N_STARS).astype(np.float32),
    }
    inputs["labels"][0], inputs["labels"][1] = low, high
    models, stable = _translate(graphs)
    report = _compare(
        lambda run, inputs: run("spectrum", inputs),
        graphs,
        models,
        stable,
        inputs,
        {},
        lambda x: _first(x, 16),
    )
    settings = {
        "labels": [{"name": x.name, "unit": x.unit, "low": x.low, "high": x.high} for x in label_set],
        "grids": [{"start": g.start, "step": g.step, "n": g.n} for g in emulator.grids],
        "approximation": emulator.approximation,
    }
    reach = [(g.wavelength[0], g.wavelength[-1]) for g in emulator.grids]
    domain = artefacts.domain(label_set, None, reach)
    return _write(Path(folder), graphs, models, stable, settings, report, domain, {"source": source})


@dataclass(frozen=True)
class Exported:
    """An export that was read: every file matched its checksum.

    Attributes:
        config: all of `config.json`.
        models: ONNX models by the name of their graph, serialised.
    """

    config: dict[str, Any]
    models: dict[str, bytes]

    def run(self, name: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The outputs of one graph, by ONNX Runtime."""
        return run_onnx(self.sessions[name], inputs)

    @cached_property
    def sessions(self) -> dict[str, Any]:
        """Of ONNX Runtime, by the name of their graph."""
        return {name: onnx_session(model) for name, model in self.models.items()}


def load_export(folder: str | os.PathLike) -> Exported:
    """Read what `export_posterior` or `export_emulator` wrote.

    Raises: InputError naming a file that is missing, or is not the one that was checked.
    """
    folder = Path(folder)
    config, models = artefacts.read_config(folder, KIND, REMAKE), {}
    for name, stated in config["settings"][FILES].items():
        path = folder / name
        try:
            content = path.read_bytes()
        except OSError as error:
            raise InputError(
                str(path), "no such file", "a file of this export", "copy the whole folder"
            ) from error
        artefacts.check_sha256(str(path), hashlib.sha256(content).hexdigest(), stated["sha256"])
        if path.suffix == ".onnx":
            models[path.stem] = content
    return Exported(config, models)


def onnx_session(model: bytes, threads: int = 0) -> Any:
    """A session of ONNX Runtime on the processor; 0 threads: as many as there are cores.

    Raises: InputError when ONNX Runtime is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise InputError(
            "export",
            "no package onnxruntime",
            "ONNX Runtime",
            'install it with pip install "jaxspec[export]"',
        ) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, threads
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def run_onnx(session: Any, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Outputs by name."""
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {k: np.float32(x) for k, x in inputs.items()}), strict=True))


def _translate(graphs: tuple[Graph, ...]) -> tuple[dict[str, bytes], dict[str, bytes]]:
    models, stable = {}, {}
    for graph in graphs:
        specs = graph.specs()
        models[graph.name] = to_onnx(graph.function, specs, graph.outputs, graph.name)
        exported = jax_export.export(jax.jit(graph.function), platforms=PLATFORMS)(*specs.values())
        stable[graph.name] = bytes(exported.serialize())
    return models, stable


def _compare(chain, graphs, models, stable, inputs, ranges, few) -> dict[str, Any]:
    """Raises InputError where a file differs from the model."""
    functions = {graph.name: graph for graph in graphs}
    compiled = {graph.name: jax.jit(graph.function) for graph in graphs}
    sessions = {name: onnx_session(model) for name, model in models.items()}

    def by_jax(name, inputs):
        outputs = compiled[name](*(inputs[k] for k in functions[name].inputs))
        return dict(zip(functions[name].outputs, map(np.asarray, outputs), strict=True))

    def by_onnx(name, inputs):
        return run_onnx(sessions[name], inputs)

    def by_stable(name, inputs):
        outputs = jax_export.deserialize(bytearray(stable[name])).call(
            *(np.float32(inputs[k]) for k in functions[name].inputs)
        )
        return dict(zip(functions[name].outputs, map(np.asarray, outputs), strict=True))

    expected, rounded = chain(by_jax, inputs), chain(by_jax, parity.nudged(inputs))
    report = {"onnx": parity.judge("ONNX", chain(by_onnx, inputs), expected, rounded, ranges)}
    start = few(inputs)
    report["stablehlo"] = parity.judge(
        "StableHLO", chain(by_stable, start), few(expected), few(rounded), ranges
    )
    return report


def _first(arrays: Mapping[str, np.ndarray], n: int) -> dict[str, np.ndarray]:
    """Of the first `n` stars, whose axis is the longest of those that have the number of all of them."""
    stars = parity.N_STARS
    return {k: np.take(x, np.arange(n), axis=list(x.shape).index(stars)) for k, x in arrays.items()}


def _write_bytes(content: bytes, path: Path) -> None:
    path.write_bytes(content)


def _write(folder, graphs, models, stable, settings, report, domain, provenance) -> Path:
    files = {f"{k}.onnx": x for k, x in models.items()} | {f"{k}.stablehlo": x for k, x in stable.items()}
    for name, content in files.items():
        atomically(folder / name, partial(_write_bytes, content))
    stated = {k: {"bytes": len(x), "sha256": hashlib.sha256(x).hexdigest()} for k, x in files.items()}
    graphs_said = {
        g.name: {"inputs": {k: list(x) for k, x in g.inputs.items()}, "outputs": list(g.outputs)}
        for g in graphs
    }
    settings = {
        **settings,
        "graphs": graphs_said,
        "any_number": [STARS, DRAWS],
        "platforms": list(PLATFORMS),
        FILES: stated,
        PARITY: report,
    }
    config = artefacts.describe(KIND, settings, domain, provenance)
    config["arrays"] = {}
    config["versions"] |= {k: v for k in ("jax2onnx", "onnx", "onnxruntime") if (v := _version(k))}
    artefacts.write_config(folder, config)
    return folder


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
