"""The wheel holds all that the command needs: it works with no checkout beside it."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no wheel can be built here: {done.stderr[-300:]}")
    (path,) = folder.glob("*.whl")
    return path


def run(python: Path | str, *arguments: str, folder: Path, **more: str) -> subprocess.CompletedProcess:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | more
    return subprocess.run(
        [str(python), "-m", "jaxspec.cli", *arguments],
        cwd=folder, env=environment, capture_output=True, text=True,
    )  # fmt: skip


def test_the_installed_package_is_whole(wheel, tmp_path):
    """Installed elsewhere, it finds its weights and tables and refuses a file by name."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert not [name for name in names if name.startswith(("experiments", "tests", "conf", "benchmarks"))]
    assert any(name.endswith("entry_points.txt") for name in names)
    installed = tmp_path / "installed"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", installed, wheel],
        check=True, capture_output=True,
    )  # fmt: skip
    done = run(sys.executable, "--version", folder=tmp_path, PYTHONPATH=str(installed))
    assert done.returncode == 0 and done.stdout.startswith("jaxspec ")
    (tmp_path / "bad.fits").write_bytes(b"SIMPLE  = nothing")
    done = run(sys.executable, "infer", "bad.fits", "-o", "out", folder=tmp_path, PYTHONPATH=str(installed))
    assert done.returncode == 1 and done.stderr.splitlines()[-1].startswith("error: bad.fits: found")
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_fresh_environment_infers_the_sun(wheel, tmp_path, data):
    """As a user has it: a new environment, the wheel with what it depends on, a real file, no checkout."""
    from jaxspec.io import read_table

    python = tmp_path / "env" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "env"], check=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", f"{wheel}[plots]"], check=True)
    (sun,) = (data / "spectra" / "giraffe").glob("*.fit")
    command = [tmp_path / "env" / "bin" / "jaxspec", "infer", sun, "-o", "sun"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    table = read_table(tmp_path / "sun" / "labels.fits")
    assert abs(table["teff"][0].value - 5772.0) < 3.0 * table["e_teff"][0].value
    assert abs(table["logg"][0].value - 4.44) < 3.0 * table["e_logg"][0].value
