"""The contract of inference on files: what comes out, what is refused, and that nothing is guessed in
silence."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import xarray as xr
from astropy.io import fits

import jaxspec
from experiments import infer
from experiments.common import ROOT
from jaxspec import inference
from jaxspec.amortised.storage import load_weights
from jaxspec.commands.infer import SHIPPED, literature
from jaxspec.errors import InputError
from jaxspec.fitting.importance import trusted
from jaxspec.inference import InferenceConfig
from jaxspec.io import read_table
from jaxspec.labels import NINE_LABELS
from jaxspec.posterior.flags import Flag, usable
from jaxspec.spectra import Spectra
from tests.experiments.conftest import configured
from tests.experiments.toys import observed
from tests.survey import write_gaia_eso
from tests.toy import TOY_INSTRUMENT

# "dex" is the field's unit of abundances, though not one of the FITS standard.

BLUE = TOY_INSTRUMENT.arms[0]


@pytest.fixture(scope="module")
def night(trained, tmp_path_factory):
    """Three stars as files: a Gaia-ESO FITS moving at 40 km/s, a header-less text file, and a truncated
    FITS."""
    result, _ = trained
    folder = tmp_path_factory.mktemp("night [1]")  # a name that Hydra's grammar would stumble over
    simulator = result.task.simulator
    labels = simulator.prior.sample(jax.random.key(3), 2)
    stars = observed(simulator, jax.random.key(4), labels, np.full(2, 150.0, np.float32))
    blue = TOY_INSTRUMENT.slices["blue"]
    flux, ivar = np.asarray(stars.flux)[:, blue], np.maximum(np.asarray(stars.ivar)[:, blue], 1.0)
    write_gaia_eso(
        folder / "a_star.fits", BLUE.wavelength, flux[0] * 300, ivar[0] / 300**2, "a", velocity=40.0
    )
    # Shifted by 25 km/s: nothing in the file says so.
    shifted = BLUE.wavelength * (1 + 25.0 / 299792.458)
    np.savetxt(folder / "b_star.txt", np.column_stack([shifted, flux[1], ivar[1] ** -0.5]))
    (folder / "c_broken.fits").write_bytes((folder / "a_star.fits").read_bytes()[:5000])
    return folder


def settings(checkpoint, folder, *more):
    return configured(
        "infer",
        f"spectra='{folder}/*_*.*'",
        f"checkpoint='{checkpoint}'",
        "forward=tests.experiments.toys.forward",
        "n_draws=100",
        "plots.corners=1",
        *more,
    )


@pytest.fixture(scope="module")
def results(trained, night, tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    (night.parent / "x").mkdir(exist_ok=True)
    cfg = settings(trained[1], str(night).replace("[", "[[]"))
    posterior, metrics = infer.run(cfg, folder)
    return folder, posterior, metrics


def test_label_table_has_the_promised_columns(results):
    folder, posterior, _ = results
    table = read_table(folder / "labels.fits")
    expected = ["source"]
    for name in NINE_LABELS.names:
        expected += [name, f"e_{name}", f"{name}_p16", f"{name}_p84"]
    assert table.colnames == [*expected, "snr", "chi2", "flags", "usable"]
    assert list(table["source"]) == ["a_star.fits", "b_star.txt"]
    assert table["teff"].unit == "K"
    np.testing.assert_allclose(table["teff"].value, posterior.median[:, 0], rtol=1e-6)
    assert np.all(table["flags"] & Flag.ARM_MISSING)
    # Spectra of one arm are not thrown away with those that fit badly.
    np.testing.assert_array_equal(table["usable"], usable(table["flags"]))
    assert table["usable"][0]
    header = fits.getheader(folder / "labels.fits", 1)
    assert header["REFUSED"] == 1 and header["PHYSICS"] == "LTE"
    assert header["TUCD2"].startswith("phys.temperature")


def test_draws_are_arviz_groups(results):
    folder, posterior, _ = results
    tree = xr.open_datatree(folder / "posterior.nc", engine="h5netcdf")
    assert tree["posterior"]["fe_h"].dims == ("sample", "star")
    np.testing.assert_array_equal(tree["posterior"]["teff"], posterior.draws[:, :, 0])
    assert {"flux", "ivar", "model"} <= set(tree["observed_data"].data_vars)
    tree.close()


def test_refused_and_assumed_are_said(results):
    folder, _, _ = results
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["n_spectra"] == 2
    assert [error["where"].endswith("c_broken.fits") for error in metrics["refused"]] == [True]
    by_name = {row["source"]: row for row in metrics["spectra"]}
    assert by_name["b_star.txt"]["assumed"]["medium"] == "air from reader settings"
    checksums = json.loads((folder / "provenance.json").read_text())["checksums"]
    assert any(name.endswith("c_broken.fits") for name in checksums)


def test_velocities_come_from_the_file_or_are_measured(results):
    _, posterior, metrics = results
    rows = {row["source"]: row for row in metrics["spectra"]}
    assert rows["a_star.fits"]["velocity"] == pytest.approx(40.0, abs=0.01)
    assert rows["b_star.txt"]["velocity_origin"] == "measured"
    assert rows["b_star.txt"]["velocity"] == pytest.approx(25.0, abs=3.0)
    np.testing.assert_allclose(posterior.stats["velocity"], [rows[n]["velocity"] for n in posterior.names])


def test_plots_are_drawn(results):
    folder, _, _ = results
    for name in ("spectrum_a_star.fits.png", "spectrum_b_star.txt.png", "corner_a_star.fits.png"):
        assert (folder / name).stat().st_size > 20_000


def test_a_notebook_gets_the_commands_numbers(trained, night, results):
    """Five lines, and labels, errors, flags and draws are equal to the last bit."""
    forward = trained[0].task.simulator.forward
    posterior = jaxspec.load_posterior(trained[1])
    files = [night / "a_star.fits", night / "b_star.txt", night / "c_broken.fits"]
    spectra, refused = jaxspec.read_spectra(files, posterior, forward=forward)
    result = jaxspec.infer(spectra, posterior, InferenceConfig(n_draws=100), forward=forward)
    assert [Path(error.where).name for error in refused] == ["c_broken.fits"]
    written, table = read_table(results[0] / "labels.fits"), result.table()
    for name in written.colnames:
        np.testing.assert_array_equal(np.asarray(table[name]), np.asarray(written[name]), err_msg=name)
    np.testing.assert_array_equal(result.posterior.draws, results[1].draws)
    np.testing.assert_array_equal(result.flags, results[1].flags)
    np.testing.assert_array_equal(result.labels, results[1].median)
    # Nothing refined, nothing checked: every star says so.
    bare = InferenceConfig(n_draws=100, refine="none", check=False)
    plain = jaxspec.infer(spectra, posterior, bare, forward=forward)
    assert (
        plain.fit is None and np.all(plain.flags & Flag.NOT_CHECKED) and np.isnan(plain.posterior.chi2).all()
    )


def test_same_command_same_numbers(trained, night, results, tmp_path):
    again, _ = infer.run(
        settings(trained[1], str(night).replace("[", "[[]"), "plots.spectra=0", "plots.corners=0"), tmp_path
    )
    np.testing.assert_array_equal(again.draws, results[1].draws)


def test_refined_draws_are_what_the_flags_describe(trained, monkeypatch):
    """A refinement that ends beyond the training range is flagged, though the network's draws were inside;
    and it fits the pixels that the network sees."""
    result, _ = trained
    key, seen = jax.random.key(5), {}
    labels = np.array([[5500, 4.4] + [0.0] * 7] * 2, np.float32)
    stars = observed(result.task.simulator, key, labels, np.full(2, 100.0, np.float32))
    spectra = Spectra.create(stars.flux, stars.ivar, TOY_INSTRUMENT.wavelength)

    def beyond(key, forward, posterior, flux, ivar, config):
        seen["ivar"] = ivar
        draws = posterior.draws.copy()
        draws[:, 1] = np.array([3900.0, 0.5] + [-2.7] * 7)
        stats = {**posterior.stats, "refined": np.array([0.0, 1.0])}
        return dataclasses.replace(posterior, draws=draws, stats=stats)

    monkeypatch.setattr(inference, "refine_posterior", beyond)
    found = inference.infer(
        spectra, result.posterior, InferenceConfig(100), key=key, forward=result.task.simulator.forward
    )
    out, ivar = found.posterior, found.ivar
    assert out.flags[1] & Flag.NEAR_BOUND and out.flags[1] & Flag.OUT_OF_RANGE
    assert out.stats["outside_prior"][1] == 1.0
    np.testing.assert_array_equal(seen["ivar"], ivar)


def test_draws_under_what_is_known_of_the_stars(trained, night, tmp_path):
    """All draws have the metallicities of the prior that is given, and the file names it."""
    here = [str(night).replace("[", "[[]"), "refine=false", "plots.spectra=0", "plots.corners=0"]
    cfg = settings(trained[1], *here, "prior={fe_h_range: [-0.2, 0.5], fe_h_mean: 0.1}")
    posterior, _ = infer.run(cfg, tmp_path)
    assert len(posterior.draws) == 100 and posterior.prior.fe_h_range == (-0.2, 0.5)
    kept = posterior.stats["contradicts_prior"] == 0
    assert kept.any() and (posterior.draws[:, kept, 2] >= -0.2).all()
    np.testing.assert_array_equal(posterior.flags & Flag.OUT_OF_RANGE > 0, ~kept)
    tree = xr.open_datatree(tmp_path / "posterior.nc", engine="h5netcdf")
    assert json.loads(tree.attrs["training_prior"])["fe_h_range"] == [-0.2, 0.5]
    assert {"prior_efficiency", "contradicts_prior"} <= set(tree["constant_data"].data_vars)
    tree.close()
    assert "prior_efficiency" in read_table(tmp_path / "labels.fits").colnames
    with pytest.raises(InputError, match="fe_h_rnge"):
        infer.run(settings(trained[1], *here, "prior={fe_h_rnge: [0, 1]}"), tmp_path / "misspelt")


def test_exact_refinement_says_how_exact_it_is(trained, night, tmp_path):
    """Two stars of S/N 150: their errors shrink, and the table tells what the draws are worth."""
    cfg = settings(trained[1], str(night).replace("[", "[[]"), "plots.spectra=0", "plots.corners=0")
    cfg.n_draws = 300  # what a hundred draws are worth is less sure
    before, _ = infer.run(cfg, tmp_path / "network")
    cfg.refine = "exact"
    after, _ = infer.run(cfg, tmp_path / "exact")
    table = read_table(tmp_path / "exact" / "labels.fits")
    assert np.all(table["efficiency"] > 0.02) and np.all(np.isfinite(table["log_evidence"]))
    assert trusted(after).all()
    np.testing.assert_allclose(table["pareto_k"], after.stats["pareto_k"], rtol=1e-6)
    np.testing.assert_array_equal(table["proposal"], after.stats["proposal"])
    assert np.all(after.error.mean(axis=1) < before.error.mean(axis=1))
    cfg.refine = "more"
    with pytest.raises(InputError, match="refine"):
        infer.run(cfg, tmp_path / "more")


def test_only_bad_files_end_with_an_error(trained, night, tmp_path):
    cfg = settings(trained[1], night)
    cfg.spectra = str(night / "c_broken.fits")
    with pytest.raises(InputError, match=r"c_broken\.fits"):
        infer.run(cfg, tmp_path)


def test_command_line_says_what_is_wrong_and_fails(tmp_path):
    arguments = [
        f"spectra={tmp_path}/nothing [x]*.fits",
        f"checkpoint={tmp_path}/none",
        f"output={tmp_path}/out",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "experiments.infer", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("error: ") and "nothing [x]" in done.stderr
    assert "Traceback" not in done.stderr


def test_checkpoint_is_a_run_or_its_posterior(trained):
    _, folder = trained
    for path in (folder, folder / "posterior"):
        assert load_weights(str(path))[0].instrument == TOY_INSTRUMENT
    with pytest.raises(InputError, match="elsewhere"):
        load_weights(str(folder / "elsewhere"))
    with pytest.raises(InputError, match="one network at a time"):
        load_weights([str(folder), str(folder)])


def test_several_networks_give_both_errors(trained, night, tmp_path):
    cfg = settings(trained[1], str(night).replace("[", "[[]"))
    cfg.checkpoint = [str(trained[1])] * 2
    infer.run(cfg, tmp_path)
    table = read_table(tmp_path / "labels.fits")
    assert np.all(table["fe_h_epistemic"] < 0.3 * table["fe_h_aleatoric"])
    checksums = json.loads((tmp_path / "provenance.json").read_text())["checksums"]
    assert any(name.endswith("posterior") for name in checksums)


def test_known_stars_are_recognised_by_name():
    names = ("procyon_uves_1.txt", "HD 122563.fits", "unknown.fits")
    spectra = Spectra.create(np.ones((3, 4)), np.ones((3, 4)), np.arange(4) + 5000.0, names=names)
    known = literature(SHIPPED, spectra, NINE_LABELS)
    np.testing.assert_allclose(known[:2, 0], [6582, 4642])
    assert np.isnan(known[2]).all() and np.isnan(known[0, NINE_LABELS.index("al_h")])
