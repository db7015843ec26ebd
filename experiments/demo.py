"""The whole way in one run (`make run`): labels by the weights in the package, then a network of one's own.

    python -m experiments.demo [spectra="FOLDER/*.fits"]

The first labels come before anything is trained, beside the true ones (of the real files given, beside
literature values where known). Then a small flow is trained, for four minutes at most, and judged. The plots
are in the output folder: `report.html` (how good the posteriors are, on one page), `recovery_as_trained.png`,
`coverage_as_trained.png`, `*corner_*.png`, `*spectrum_*.png`. See `jaxspec.commands.demo`.
"""

import dataclasses
from pathlib import Path

from omegaconf import DictConfig

from experiments.common import RUN, contents, launch
from jaxspec.commands import demo, train
from jaxspec.settings import build


def run(cfg: DictConfig, folder: Path) -> train.Trained:
    """Settings of the training by their own names, all others are the demonstration's."""
    values = contents(cfg)
    own = {field.name for field in dataclasses.fields(train.Settings)}
    training = build(train.Settings, {k: v for k, v in values.items() if k in own})
    rest = {k: v for k, v in values.items() if k not in own and k not in RUN}
    return demo.run(training, build(demo.Settings, rest), folder)


if __name__ == "__main__":
    launch(run, "demo")
