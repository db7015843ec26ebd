"""Spectra a second at 17,000 pixels: simulation, training, densities and draws, against FrEIA in the same
run.

    pip install "jaxspec[bench]"
    python -m benchmarks.throughput [--batch 64] [--draws 1000] [--train-seconds 60] [--no-peer]

Some five minutes on two cores. Prints a table and writes `outputs/benchmarks/throughput.json`. For each
operation: what compilation costs once, the steady rate (median of repeats), the floor that its floating-point
operations set at the rate this machine multiplies matrices, and the ratio to FrEIA's rate. At the end both
networks are trained for the same time on the same simulated spectra, and their held-out negative
log-likelihoods are printed: speed is worth nothing without it.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from jaxspec.amortised.network import NetworkConfig, PosteriorNetwork
from jaxspec.datasets import Dataset
from jaxspec.flows import FLOW_PRESETS
from jaxspec.instruments import Arm, Instrument
from jaxspec.networks import ENCODER_PRESETS
from jaxspec.physics.forward import load_forward_model
from jaxspec.runs import atomically, describe_device, versions
from jaxspec.simulation.simulator import Simulator

# GIRAFFE's two arms with finer pixels in the blue one: exactly 17,000.
INSTRUMENT = Instrument(
    "giraffe_17k",
    (Arm("hr10", 5330.0, 5610.0, 0.04, 21_500.0), Arm("hr21", 8480.0, 8980.0, 0.05, 18_000.0)),
)
SIZES = {"small": ("small", "small"), "base": ("default", "default")}


def measure(call: Callable[[], Any], repeats: int) -> tuple[float, float]:
    """Seconds of the first call and the median of the later ones."""
    times = []
    for _ in range(repeats + 1):
        begun = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - begun)
    return times[0], statistics.median(times[1:])


def matmul_rate(n: int = 2048) -> float:
    """Floating-point operations a second of a large float32 matrix product: what this device can do."""
    a = jnp.ones((n, n))
    product = jax.jit(lambda a: a @ a)
    return 2 * n**3 / measure(lambda: product(a), 5)[1]


def compiled_row(
    name: str, unit: str, n: int, function: Callable, arguments: tuple, args: argparse.Namespace, rate: float
) -> dict[str, Any]:
    """Compile a function by itself, then time it; operations as XLA counts them."""
    begun = time.perf_counter()
    compiled = jax.jit(function).lower(*arguments).compile()
    compile_seconds = time.perf_counter() - begun
    analysis = compiled.cost_analysis()
    analysis = analysis[0] if isinstance(analysis, list) else analysis or {}
    _, steady = measure(lambda: compiled(*arguments), args.repeats)
    return row(name, unit, n, steady, compile_seconds, float(analysis.get("flops", 0.0)), rate)


def row(
    name: str, unit: str, n: int, steady: float, compile_seconds: float, operations: float, rate: float
) -> dict[str, Any]:
    """One line of the table; `over_floor` is the time over that of the operations at the rate `rate`."""
    return {
        "operation": name,
        "unit": unit,
        "per_second": n / steady,
        "milliseconds": 1e3 * steady,
        "compile_seconds": compile_seconds,
        "gflop": operations / 1e9,
        "over_floor": steady / (operations / rate) if operations > 0 else None,
    }


def make_network(size: str, simulator: Simulator, batch: Dataset) -> PosteriorNetwork:
    """An untrained network of one of the shipped sizes, standardised."""
    encoder, flow = SIZES[size]
    config = NetworkConfig(ENCODER_PRESETS[encoder], FLOW_PRESETS[flow])
    network = PosteriorNetwork(config, simulator.forward.label_set, INSTRUMENT.n_pixels, rngs=nnx.Rngs(0))
    network.set_statistics(batch.labels, batch.flux, batch.ivar)
    return network


def training_step(network: PosteriorNetwork):
    """(params, moments, batch) -> (params, moments, loss) and the start."""
    graph, params, rest = nnx.split(network, nnx.Param, ...)
    optimiser = optax.adamw(1e-3)

    def step(params, moments, batch):
        def loss(params):
            return -jnp.mean(nnx.merge(graph, params, rest).log_prob(batch.labels, batch.flux, batch.ivar))

        value, gradient = jax.value_and_grad(loss)(params)
        updates, moments = optimiser.update(gradient, moments, params)
        return optax.apply_updates(params, updates), moments, value

    return jax.jit(step), params, optimiser.init(params), lambda params: nnx.merge(graph, params, rest)


def bench_jaxspec(simulator: Simulator, args: argparse.Namespace, rate: float) -> list[dict[str, Any]]:
    """Simulation, and each size of network."""
    key, n = jax.random.key(0), args.batch

    def simulate(key):
        return simulator.simulate(key, n)

    rows = [compiled_row("simulate", "spectra", n, simulate, (key,), args, rate)]
    batch = simulate(key)
    for size in args.sizes:
        network = make_network(size, simulator, batch)
        step, params, moments, _ = training_step(network)
        graph, state = nnx.split(network)

        def density(state, batch, graph=graph):
            return nnx.merge(graph, state).log_prob(batch.labels, batch.flux, batch.ivar)

        def draw(state, key, batch, graph=graph):
            return nnx.merge(graph, state).sample(key, batch.flux, batch.ivar, args.draws)[0]

        rows += [
            compiled_row(f"train step, {size}", "spectra", n, step, (params, moments, batch), args, rate),
            compiled_row(f"log_prob, {size}", "spectra", n, density, (state, batch), args, rate),
            compiled_row(f"sample, {size}", "draws", n * args.draws, draw, (state, key, batch), args, rate),
        ]
    return rows


def bench_peer(batch: Dataset, args: argparse.Namespace, rate: float) -> list[dict[str, Any]]:
    """FrEIA: the letter of the description, and with strides that spare it most of the work."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from benchmarks.peer import Peer

    flux, rows = torch.from_numpy(np.array(batch.flux)), []
    z = torch.randn(len(flux), 9)
    for name, strides in (("as described", (16, 1, 1)), ("generous strides", (16, 16, 4))):
        few = max(args.batch // 8, 1) if strides[1] == 1 else args.batch
        peer, f, labels = Peer(strides=strides), flux[:few], z[:few]
        optimiser = torch.optim.AdamW(peer.parameters(), 1e-3)

        def step(peer=peer, optimiser=optimiser, f=f, labels=labels):
            optimiser.zero_grad()
            loss = -peer.log_prob(labels, f).mean()
            loss.backward()
            optimiser.step()

        @torch.no_grad()
        def density(peer=peer, f=f, labels=labels):
            peer.log_prob(labels, f)

        @torch.no_grad()
        def draw(peer=peer, f=f):
            peer.sample(f, args.draws)

        for label, unit, call, n in (
            ("train step", "spectra", step, few),
            ("log_prob", "spectra", density, few),
            ("sample", "draws", draw, few * args.draws),
        ):
            with FlopCounterMode(display=False) as counter:
                call()
            first, steady = measure(call, args.repeats if strides[1] > 1 else 2)
            operations = counter.get_total_flops()
            rows.append(row(f"{label}, FrEIA {name}", unit, n, steady, first - steady, operations, rate))
            rows[-1]["batch"] = few
    return rows


def compare_likelihoods(simulator: Simulator, args: argparse.Namespace) -> dict[str, float]:
    """-ln q of held-out spectra, in standardised unconstrained labels, after equal times of training
    steps."""
    simulate = jax.jit(lambda key: simulator.simulate(key, args.batch))
    batch = lambda i: simulate(jax.random.fold_in(jax.random.key(5), i))  # noqa: E731
    test = [batch(10**6 + i) for i in range(8)]
    labels = simulator.forward.label_set
    z = labels.to_unconstrained(np.concatenate([b.labels for b in test]))
    mean, std = np.mean(z, axis=0), np.std(z, axis=0)
    result = {}
    for size in args.sizes:
        network = make_network(size, simulator, test[0])
        step, params, moments, merge = training_step(network)
        jax.block_until_ready(step(params, moments, batch(0)))
        spent, i = 0.0, 0
        while spent < args.train_seconds:
            b = jax.block_until_ready(batch(i))
            begun = time.perf_counter()
            params, moments, _ = jax.block_until_ready(step(params, moments, b))
            spent, i = spent + time.perf_counter() - begun, i + 1
        graph, state = nnx.split(merge(params))
        density = jax.jit(lambda s, b: nnx.merge(graph, s).log_prob(b.labels, b.flux, b.ivar))  # noqa: B023
        # To densities of standardised z: add ln |d labels / d z| and the scales.
        in_z = [density(state, b) + labels.log_det(labels.to_unconstrained(b.labels)) for b in test]
        result[size] = {"nll": -float(np.mean(in_z)) - float(np.log(std).sum()), "steps": i}
    if args.peer:
        import torch

        from benchmarks.peer import Peer

        peer = Peer(strides=(16, 16, 4))
        optimiser = torch.optim.AdamW(peer.parameters(), 1e-3)

        def tensors(b):
            z = (np.asarray(labels.to_unconstrained(b.labels)) - mean) / std
            return torch.from_numpy(np.array(z, np.float32)), torch.from_numpy(np.array(b.flux))

        spent, i = 0.0, 0
        while spent < args.train_seconds:
            b = tensors(batch(i))
            begun = time.perf_counter()
            optimiser.zero_grad()
            loss = -peer.log_prob(*b).mean()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(peer.parameters(), 5.0)
            optimiser.step()
            spent, i = spent + time.perf_counter() - begun, i + 1
        with torch.no_grad():
            nll = -float(torch.cat([peer.log_prob(*tensors(b)) for b in test]).mean())
        result["FrEIA generous strides"] = {"nll": nll, "steps": i}
    return result


def with_ratios(rows: list[dict[str, Any]]) -> None:
    """Each rate over the better of FrEIA's two for the same operation."""
    best = {}
    for r in rows:
        kind, _, who = r["operation"].partition(", ")
        if who.startswith("FrEIA"):
            best[kind] = max(best.get(kind, 0.0), r["per_second"])
    for r in rows:
        kind = r["operation"].partition(", ")[0]
        r["over_freia"] = r["per_second"] / best[kind] if kind in best else None


def print_table(rows: list[dict[str, Any]]) -> None:
    columns = (("", 9), ("ms", 9), ("compile s", 11), ("Gflop", 9), ("x floor", 9), ("x FrEIA", 9))
    print(f"{'operation':<32}{'per second':>12}" + "".join(f"{name:>{width}}" for name, width in columns))
    for r in rows:
        floor = f"{r['over_floor']:.1f}" if r["over_floor"] else "-"
        ratio = f"{r['over_freia']:.2f}" if r["over_freia"] else "-"
        print(
            f"{r['operation']:<32}{r['per_second']:>12,.0f} {r['unit']:<8}{r['milliseconds']:>9.1f}"
            f"{max(r['compile_seconds'], 0.0):>11.1f}{r['gflop']:>9.1f}{floor:>9}{ratio:>9}"
        )


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Run, print, write; returns what is written."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--train-seconds", type=float, default=60.0, help="0: no comparison of likelihoods")
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), choices=SIZES)
    parser.add_argument("--no-peer", dest="peer", action="store_false", help="without FrEIA")
    parser.add_argument("--output", type=Path, default=Path("outputs/benchmarks/throughput.json"))
    args = parser.parse_args(arguments)
    simulator = Simulator(load_forward_model(INSTRUMENT))
    rate = matmul_rate()
    print(f"{describe_device()}; matrix products at {rate / 1e9:.0f} Gflop/s")
    print(f"{INSTRUMENT.n_pixels} pixels, batch {args.batch}, {args.draws} draws a spectrum, float32\n")
    rows = bench_jaxspec(simulator, args, rate)
    if args.peer:
        rows += bench_peer(simulator.simulate(jax.random.key(1), args.batch), args, rate)
    with_ratios(rows)
    print_table(rows)
    report = {
        "pixels": INSTRUMENT.n_pixels,
        "batch": args.batch,
        "draws": args.draws,
        "device": describe_device(),
        "matmul_gflops": rate / 1e9,
        "versions": {**versions(), **_peer_versions(args.peer)},
        "rows": rows,
    }
    if args.train_seconds > 0:
        report["nll_after_seconds"] = args.train_seconds
        report["nll"] = compare_likelihoods(simulator, args)
        print(f"\nheld-out -ln q per star (standardised labels) after {args.train_seconds:g} s of training:")
        for name, value in report["nll"].items():
            print(f"  {name:<24}{value['nll']:>8.2f}   {value['steps']} steps")
    atomically(args.output, lambda p: p.write_text(json.dumps(report, indent=2) + "\n"))
    print(f"\n{args.output}")
    return report


def _peer_versions(peer: bool) -> dict[str, str]:
    if not peer:
        return {}
    from importlib import metadata

    return {name: metadata.version(name) for name in ("torch", "FrEIA")}


if __name__ == "__main__":
    main()
