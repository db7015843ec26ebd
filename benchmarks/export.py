"""Stars a second of exported weights: ONNX Runtime against JAX, turn by turn in one process.

    pip install "jaxspec[export]"
    python -m benchmarks.export MODEL [--batches 1 64] [--draws 1000] [--repeats 5]

MODEL is a folder that `jaxspec export` wrote. For each batch: prepare, encode and sample, as a consumer runs
them, and the ratio of the two rates. Prints a table and writes `outputs/benchmarks/export.json`.
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxspec.amortised.storage import load_weights
from jaxspec.runs import atomically, describe_device, versions
from jaxspec.serving import parity
from jaxspec.serving.export import load_export
from jaxspec.serving.graphs import posterior_graphs


def seconds(calls: dict[str, Any], repeats: int) -> dict[str, float]:
    """Median seconds of each call, in turn so that all see the same machine; the first does not count."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats + 1):
        for name, call in calls.items():
            begun = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - begun)
    return {name: statistics.median(values[1:]) for name, values in times.items()}


def compare(folder: str, batches: list[int], n_draws: int, repeats: int) -> list[dict[str, Any]]:
    """One row a batch."""
    posterior, _ = load_weights(folder)
    onnx = load_export(folder).run
    graphs = {graph.name: graph for graph in posterior_graphs(posterior)}
    compiled = {name: jax.jit(graph.function) for name, graph in graphs.items()}

    def by_jax(name: str, inputs: dict[str, Any]) -> dict[str, Any]:
        outputs = jax.block_until_ready(compiled[name](*(inputs[k] for k in graphs[name].inputs)))
        return dict(zip(graphs[name].outputs, outputs, strict=True))

    rows = []
    for batch in batches:
        inputs = parity.posterior_inputs(posterior, max(batch, 2))
        flux, ivar = (inputs[k][-batch:] for k in ("flux", "ivar"))
        noise = np.random.default_rng(0).normal(size=(n_draws, batch, len(posterior.label_set)))
        noise = noise.astype(np.float32)

        def whole(run: Any, flux: Any = flux, ivar: Any = ivar, noise: Any = noise) -> Any:
            context = run("encode", run("prepare", {"flux": flux, "ivar": ivar}))["context"]
            return run("sample", {"context": context, "noise": noise})

        taken = seconds({"jax": lambda: whole(by_jax), "onnx": lambda: whole(onnx)}, repeats)
        rates = {name: batch / value for name, value in taken.items()}
        rows.append({"batch": batch, **rates, "ratio": rates["onnx"] / rates["jax"]})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 64])
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    rows = compare(options.model, options.batches, options.draws, options.repeats)
    print(f"{'batch':>6} {'JAX stars/s':>12} {'ONNX stars/s':>13} {'ratio':>6}")
    for row in rows:
        print(f"{row['batch']:>6} {row['jax']:>12.1f} {row['onnx']:>13.1f} {row['ratio']:>6.2f}")
    result = {"rows": rows, "draws": options.draws, "device": describe_device(), "versions": versions()}
    path = Path("outputs/benchmarks/export.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    atomically(path, lambda partial: partial.write_text(json.dumps(result, indent=2) + "\n"))


if __name__ == "__main__":
    main()
