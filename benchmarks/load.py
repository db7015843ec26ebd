"""A server under load: answers compared with those it gave alone, broken requests, memory and times.

    jaxspec serve MODEL --port 8000 refine=none check=false
    python -m benchmarks.load --port 8000 --pid PID [--clients 8] [--seconds 180] [--broken 0.01]

Clients send one of a few spectra each, made from the forward model with noise and with a seed of its own, as
fast as answers come. One request in a hundred is broken in one of several ways, and must be answered with a
4xx that names what is wrong. An answer counts as wrong where a label differs from that of the same request
alone by more than a thousandth of its error. Prints times and memory and writes
`outputs/benchmarks/load.json`.
"""

import argparse
import copy
import json
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from jaxspec.instruments import get_instrument
from jaxspec.physics.forward import load_forward_model
from jaxspec.reading import make_template
from jaxspec.runs import atomically, describe_device

BREAKS = {
    "input wavelength": lambda r: r["inputs"].pop(0),
    "inputs, flux": lambda r: r["inputs"][1]["data"].__setitem__(99, None),
    "inputs, ivar": lambda r: r["inputs"][2]["data"].__setitem__(99, -1.0),
    "input ivar": lambda r: r["inputs"][2].update(shape=[1, 1], data=[1.0]),
    "parameter seed": lambda r: r.update(parameters={"seed": "?"}),
    "flux, datatype": lambda r: r["inputs"][1].update(datatype="FP65"),
}


def make_requests(instrument: str, n: int) -> list[dict[str, Any]]:
    """Infer requests of one spectrum each, at rest and at S/N 50."""
    template = make_template(load_forward_model(get_instrument(instrument)))
    rng, requests = np.random.default_rng(0), []
    for i in range(n):
        flux = np.asarray(template.flux[i % len(template.flux)], float)
        flux = flux * (1.0 + 0.02 * rng.normal(size=flux.shape))
        arrays = {
            "wavelength": template.wavelength,
            "flux": flux[None],
            "ivar": np.full((1, flux.size), 2500.0),
        }
        inputs = [
            {"name": k, "datatype": "FP64", "shape": list(x.shape), "data": np.round(x, 6).ravel().tolist()}
            for k, x in arrays.items()
        ]
        parameters = {"seed": i, "frame": "rest", "medium": "air", "resolving_power": 18000.0}
        requests.append({"inputs": inputs, "parameters": parameters})
    return requests


def ask(address: str, content: bytes) -> tuple[int, dict[str, Any]]:
    """Status and JSON."""
    request = urllib.request.Request(f"{address}/v2/models/jaxspec/infer", content)
    try:
        with urllib.request.urlopen(request, timeout=300) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def values(answer: dict[str, Any], name: str) -> np.ndarray:
    """One output."""
    return np.array(next(x["data"] for x in answer["outputs"] if x["name"] == name), float)


def memory(pid: int) -> float:
    """Resident memory of a process [MB]."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.split("VmRSS:")[1].split()[0]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--pid", type=int, required=True)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--broken", type=float, default=0.01)
    parser.add_argument("--spectra", type=int, default=8)
    parser.add_argument("--instrument", default="giraffe")
    options = parser.parse_args()
    address = f"http://127.0.0.1:{options.port}"
    requests = make_requests(options.instrument, options.spectra)
    bodies = [json.dumps(request).encode() for request in requests]
    broken = {}
    for what, change in BREAKS.items():
        request = copy.deepcopy(requests[0])
        change(request)
        broken[what] = json.dumps(request).encode()
    alone = [ask(address, body)[1] for body in bodies]
    counts: Counter[str] = Counter()
    times: list[float] = []
    end = time.monotonic() + options.seconds

    def client(number: int) -> None:
        rng = np.random.default_rng(number)
        while time.monotonic() < end:
            if rng.random() < options.broken:
                what = str(rng.choice(list(broken)))
                status, answer = ask(address, broken[what])
                named = 400 <= status < 500 and what in answer.get("error", "")
                counts["broken, named" if named else "broken, not named"] += 1
                continue
            i, begun = int(rng.integers(len(bodies))), time.perf_counter()
            status, answer = ask(address, bodies[i])
            times.append(time.perf_counter() - begun)
            if status != 200:
                counts[f"status {status}"] += 1
                continue
            off = np.abs(values(answer, "labels") - values(alone[i], "labels")) / values(alone[i], "errors")
            counts["right" if off.max() < 1e-3 else "wrong"] += 1

    threads = [threading.Thread(target=client, args=(i,)) for i in range(options.clients)]
    before = memory(options.pid)
    for thread in threads:
        thread.start()
    used = []
    while any(thread.is_alive() for thread in threads):
        time.sleep(min(5.0, options.seconds / 10))
        used.append(memory(options.pid))
    p50, p99 = (float(np.quantile(times, q)) for q in (0.5, 0.99))
    half = len(used) // 2
    result = {
        "counts": dict(counts),
        "p50_seconds": p50,
        "p99_seconds": p99,
        "requests_per_second": len(times) / options.seconds,
        "memory_mb": {"before": before, "half": used[half], "end": used[-1], "largest": max(used)},
        "clients": options.clients,
        "seconds": options.seconds,
        "device": describe_device(),
    }
    print(json.dumps(result, indent=2))
    path = Path("outputs/benchmarks/load.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    atomically(path, lambda partial: partial.write_text(json.dumps(result, indent=2) + "\n"))


if __name__ == "__main__":
    main()
