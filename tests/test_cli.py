"""The command line: options come from settings, and wrong ones end with a sentence and the right status."""

import subprocess
import sys
import types
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

import jaxspec
from jaxspec import cli
from jaxspec.errors import InputError


@dataclass(frozen=True)
class Reader:
    """How files are read.

    Attributes:
        unit: of wavelengths; none: Angstrom.
        snr: per pixel.
    """

    unit: str | None = None
    snr: float = 100.0


@dataclass(frozen=True)
class Settings:
    """A job.

    Attributes:
        spectra: files.
        n_draws: draws of a star,
            of each.
        refine: none or robust.
        prior, other: two of a kind.
        reader: what to take.
    """

    spectra: str | tuple[str, ...]
    n_draws: int = 10
    refine: str = "robust"
    prior: str | None = None
    other: float = 1.0
    reader: Reader = field(default_factory=Reader)


JOB = types.SimpleNamespace(Settings=Settings, INPUT="spectra", __doc__="Do it.")


def read(*arguments):
    return cli.read_arguments("job", JOB, list(arguments))


def test_files_options_and_assignments_mix():
    settings, output, cache = read(
        "a.fits", "--n-draws", "7", "reader.unit=nm", "b.fits", "-o", "out", "--snr", "5", "--no-cache"
    )
    assert settings == Settings(("a.fits", "b.fits"), 7, reader=Reader("nm", 5.0))
    assert output == Path("out") and cache is False
    settings, output, cache = read("a.fits", "--reader.unit", "um", "--", "refine=none", "prior=none")
    assert settings == Settings("a.fits", refine="none", reader=Reader("um")) and cache is True
    assert output.parts[:2] == ("outputs", "job")


def test_a_single_result_needs_a_name():
    job = types.SimpleNamespace(Settings=Settings, INPUT="spectra", OUTPUT="file", __doc__="Do it.")
    with pytest.raises(InputError, match=r"output: found nothing.*-o job\.h5"):
        cli.read_arguments("job", job, ["a.fits"])
    assert cli.read_arguments("job", job, ["a.fits", "-o", "a.h5"])[1] == Path("a.h5")


def test_a_file_with_an_equals_sign_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("n_draws=3.fits").touch()
    assert read("n_draws=3.fits")[0].spectra == "n_draws=3.fits"
    assert read("teff=5000.fits")[0].spectra == "teff=5000.fits"  # no setting of that name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "spectra: found nothing.*jaxspec job FILE"),
        (("a", "n_draws=many"), "n_draws: found 'many'; expected a number"),
        (("a", "reader.unti=nm"), "reader.unti: found no such setting.*reader.unit"),
    ],
)
def test_wrong_settings_are_named(arguments, message):
    with pytest.raises(InputError, match=message):
        read(*arguments)


def test_help_says_what_each_setting_is(capsys):
    with pytest.raises(SystemExit) as stopped:
        read("--help")
    text = " ".join(capsys.readouterr().out.split())
    assert stopped.value.code == 0
    assert "Do it." in text and "draws of a star, of each (default: 10)" in text
    assert "--unit VALUE, --reader.unit VALUE of wavelengths; none: Angstrom (default: none)" in text
    assert "--other VALUE two of a kind (default: 1.0)" in text


def test_every_command_documents_every_setting():
    import importlib

    for name in cli.COMMANDS:
        module = importlib.import_module(f"jaxspec.commands.{cli.module_name(name)}")
        assert callable(module.run) and module.__doc__
        for option in cli.leaves(module.Settings):
            assert option.help, f"jaxspec {name}: {option.name} has no line in Attributes:"


def test_the_first_look_is_quick():
    """`import jaxspec` and `jaxspec --help` import no JAX, and every public name can be had."""
    code = (
        "import sys, jaxspec, jaxspec.cli\n"
        "assert jaxspec.cli.main(['--help']) == 0\n"
        "sys.exit('jax' in sys.modules or 'astropy' in sys.modules or 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "infer" in done.stdout and "calibrate" in done.stdout
    assert done.returncode in (0, 1), done.stderr
    quick = subprocess.run(
        [sys.executable, "-c", "import sys, jaxspec; sys.exit('jax' in sys.modules)"], capture_output=True
    )
    assert quick.returncode == 0
    for name in jaxspec.__all__:
        assert callable(getattr(jaxspec, name)) and name in dir(jaxspec)
    with pytest.raises(AttributeError, match="frobnicate"):
        jaxspec.frobnicate  # noqa: B018


def test_status_and_message(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["infer", "absent.fits", "reader.unti=nm"]) == 1
    assert capsys.readouterr().err.startswith("error: reader.unti: found no such setting")
    with pytest.raises(SystemExit) as stopped:
        cli.main(["frobnicate"])
    assert stopped.value.code == 2
    with pytest.raises(SystemExit) as stopped:
        cli.main(["--version"])
    assert stopped.value.code == 0 and jaxspec.__version__ in capsys.readouterr().out
    job = types.SimpleNamespace(
        Settings=Settings,
        INPUT="spectra",
        __doc__="Do it.",
        run=lambda *_: (_ for _ in ()).throw(KeyboardInterrupt),
    )
    monkeypatch.setattr(cli.importlib, "import_module", lambda name: job)
    assert cli.main(["infer", "a.fits", "--no-cache"]) == 130
    assert list(tmp_path.iterdir()) == []  # nothing was written by any of them


def test_an_error_names_what_can_be_typed(tmp_path):
    """A text file in nm: the setting, the option and the argument that say so, each of which works."""
    from jaxspec.io import read_spectrum
    from jaxspec.io.spectrum import Assume

    path, assume = tmp_path / "star.txt", Assume(medium="air", frame="rest")
    wavelength = np.arange(533.0, 561.0, 0.005)
    np.savetxt(path, np.column_stack([wavelength, np.ones(len(wavelength)), np.full(len(wavelength), 0.01)]))
    with pytest.raises(InputError) as refused:
        read_spectrum(path, assume=assume)
    typed = ("unit='nm'", "reader.unit=nm", "--unit nm")
    assert all(name in refused.value.fix for name in typed), refused.value.fix
    assert read_spectrum(path, assume=assume, unit="nm").wavelength[0] == pytest.approx(5330.0)
    for words in (["reader.unit=nm"], ["--unit", "nm"]):
        assert read("a.txt", *words)[0].reader.unit == "nm"
    with pytest.raises(InputError, match=r"argument snr.*reader\.snr=80 or --snr 80"):
        read_spectrum(path, assume=assume, unit="nm", snr=-1.0)
