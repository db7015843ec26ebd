"""Stars a second: four labels from Gaia XP spectra, by the model in the package and by gradient boosting.

    pip install "jaxspec[xp]"
    python -m benchmarks.stars [--stars 20000] [--model FOLDER]

A minute on two cores, most of it for fitting the trees. Both read the same table of coefficients. The model
gives distributions (medians and 68 % intervals are in its time), the trees one number for each label. Prints
a table and writes `outputs/benchmarks/stars.json`.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from flax import nnx

from jaxspec.commands.pretrain import operations
from jaxspec.foundation.baselines import sklearn
from jaxspec.foundation.gaia_xp import load_gaia_xp
from jaxspec.foundation.model import FoundationModel
from jaxspec.foundation.table import ATMOSPHERE, Table, part
from jaxspec.foundation.tasks import standard_tasks
from jaxspec.runs import atomically, describe_device, versions


def rate(call: Callable[[], object], n: int, repeats: int = 5) -> float:
    """Stars a second: median of repeats, after a first call that compiles."""
    call()
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        call()
        times.append(time.perf_counter() - begun)
    return n / statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--stars", type=int, default=20_000)
    parser.add_argument("--model")
    options = parser.parse_args()
    model = FoundationModel.load(options.model)
    table = load_gaia_xp().table
    given = standard_tasks(model.names)["xp"].given
    train = table.rows(part(table.source, 0)["train"])
    rows = np.arange(options.stars) % table.n_stars
    stars = table.rows(rows).columns(given)

    def ask() -> Table:
        return model.predict(stars, ATMOSPHERE).table()

    def distributions() -> object:
        return model.predict(stars, ATMOSPHERE)

    x, y = train.columns(given).values, train.columns(ATMOSPHERE).values
    boosting = sklearn("ensemble").HistGradientBoostingRegressor
    trees = [boosting(max_iter=200, learning_rate=0.08).fit(x, y[:, i]) for i in range(y.shape[1])]
    results = {
        "model, distributions": rate(distributions, options.stars),
        "model, table with quantiles": rate(ask, options.stars),
        "gradient boosting, 200 trees a label": rate(
            lambda: [tree.predict(stars.values) for tree in trees], options.stars
        ),
    }
    n = sum(x.size for x in nnx.to_flat_state(nnx.state(model.network, nnx.Param)).leaves)
    print(f"{n:,} parameters, {operations(model.network.config, len(model.names), 4):,} products a star")
    print("| | stars/s |\n|---|---|")
    for name, value in results.items():
        print(f"| {name} | {value:,.0f} |")
    out = {
        "device": describe_device(),
        "versions": versions(),
        "stars": options.stars,
        "stars_per_second": results,
    }
    path = Path("outputs/benchmarks/stars.json")
    atomically(path, lambda partial: partial.write_text(json.dumps(out, indent=2) + "\n"))


if __name__ == "__main__":
    main()
