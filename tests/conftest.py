"""What all tests share: four virtual devices, quick compilation, a cache of it, checked types, and the
reference data."""

import dataclasses
import json
import os
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# Before JAX is imported: it reads all of them once. Most of the suite's time goes into compiling, which takes
# less than half as long without optimisation and with XLA's older emitters of loops. Users have the defaults.
FLAGS = ["--xla_force_host_platform_device_count=4", "--xla_backend_optimization_level=0"]
if version("jaxlib").startswith("0.10."):  # XLA aborts at a flag that it does not know
    FLAGS.append("--xla_cpu_use_fusion_emitters=false")
for flag in FLAGS:
    if flag.split("=")[0] not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()
# One cache for all workers and the processes that tests start. JAX neither locks it nor writes in one go: a
# process may meet an entry that another one is writing, or was writing when it was killed. It then warns (see
# the filter in pyproject.toml) and compiles the program itself.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
os.environ.setdefault("MPLBACKEND", "Agg")

from jaxtyping import install_import_hook  # noqa: E402

import tests.typecheck  # noqa: E402, F401  (the hook below looks it up by name)

install_import_hook("jaxspec", "tests.typecheck.check")

import numpy as np  # noqa: E402
import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402

from tests.lanes import _strict_lane  # noqa: E402, F401  (a fixture for all tests)

DURATIONS = Path(__file__).with_name("durations.json")

# The same examples in every run: a failure then belongs to the change that caused it.
settings.register_profile("jaxspec", derandomize=True, deadline=None, max_examples=50)
settings.load_profile("jaxspec")


def pytest_addoption(parser):
    parser.addoption(
        "--record-durations",
        action="store_true",
        help=f"write the seconds of each file into {DURATIONS.name}, by which files are handed to workers",
    )


def pytest_collection_modifyitems(config, items):
    """Workers get the longest files first, so that they end at about the same time.

    They begin in different folders: what one of them compiles the next may need. A file that was never timed
    counts as short.
    """
    if not hasattr(config, "workerinput"):
        return
    seconds = json.loads(DURATIONS.read_text())
    files = dict.fromkeys(item.nodeid.split("::")[0] for item in items)
    files = sorted(files, key=lambda name: -seconds.get(name, 10.0))
    longest = {}  # of each folder
    for name in files:
        longest.setdefault(name.rpartition("/")[0], name)
    rank = {name: i for i, name in enumerate(dict.fromkeys([*list(longest.values())[:4], *files]))}
    items.sort(key=lambda item: rank[item.nodeid.split("::")[0]])


class Durations:
    """Adds up what the tests of each file take."""

    def __init__(self):
        self.seconds = defaultdict(float)

    def pytest_runtest_logreport(self, report):
        self.seconds[report.nodeid.split("::")[0]] += report.duration

    def pytest_sessionfinish(self, session):
        before = json.loads(DURATIONS.read_text()) if DURATIONS.exists() else {}
        known = before | {name: round(value, 1) for name, value in self.seconds.items()}
        there = {name: known[name] for name in sorted(known) if (ROOT / name).exists()}
        DURATIONS.write_text(json.dumps(there, indent=0) + "\n")


def pytest_configure(config):
    if config.getoption("--record-durations") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Durations())


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of reference data; tests that ask for it are skipped where there is none."""
    folder = os.environ.get("JAXSPEC_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("needs the reference data: set JAXSPEC_DATA to its folder")
    return Path(folder)


@pytest.fixture(scope="module", autouse=True)
def _forget_compiled_programs():
    """Drop what was compiled when the process comes near a limit of the kernel's.

    Each compiled program holds several memory maps, Linux allows 65530 a process (`vm.max_map_count`), and
    beyond it the compiler aborts the process. What is needed again is read from the cache on disk.
    """
    yield
    if memory_maps() > 0.3:
        import jax

        jax.clear_caches()


def memory_maps() -> float:
    """The share of the memory maps that Linux allows this process; 0 on other systems."""
    try:
        with open("/proc/self/maps", "rb") as maps, open("/proc/sys/vm/max_map_count") as limit:
            return sum(1 for _ in maps) / int(limit.read())
    except OSError:
        return 0.0


@pytest.fixture
def rng(request) -> np.random.Generator:
    """A generator seeded by the test's name, so that tests do not disturb each other's numbers."""
    return np.random.default_rng(list(request.node.name.encode()))


@pytest.fixture
def x64():
    """Double precision for one test."""
    import jax

    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session")
def toy():
    from tests.toy import ToyForwardModel

    return ToyForwardModel()


@pytest.fixture(scope="session")
def simulator(toy):
    from jaxspec.simulation.simulator import Simulator

    return Simulator(toy)


@pytest.fixture(scope="session")
def survey(simulator):
    """4,096 stars as the default configuration draws them."""
    import jax
    import jax.numpy as jnp

    batches = [simulator.simulate(jax.random.fold_in(jax.random.key(7), i), 512) for i in range(8)]
    return jax.tree.map(lambda *x: jnp.concatenate(x), *batches)


@pytest.fixture(scope="session")
def bright(toy):
    """64 stars with both arms at S/N 300 and nothing masked."""
    import jax

    from jaxspec.simulation.nuisances import PURE
    from jaxspec.simulation.simulator import Simulator

    config = dataclasses.replace(PURE, only_arm=(), snr_range=(300.0, 300.0), bad_pixels=0.0, cosmics=0.0)
    return Simulator(toy, config=config).simulate(jax.random.key(8), 64)
