"""Exported files: the same numbers without JAX, and refusals."""

import json
import shutil

import jax
import numpy as np
import pytest

pytest.importorskip("jax2onnx")
pytest.importorskip("onnxruntime")

from jaxspec.amortised.storage import load_weights
from jaxspec.commands import export as command
from jaxspec.errors import InputError
from jaxspec.serving import parity
from jaxspec.serving.convert import to_onnx
from jaxspec.serving.export import load_export, onnx_session, run_onnx
from jaxspec.serving.graphs import posterior_graphs
from tests.serving.conftest import network


@pytest.mark.slow  # a whole export
def test_draws_without_jax_are_those_of_the_model(exported, spline):
    """Against the posterior's own functions, on spectra that the gate has not seen, and at another size."""
    run = load_export(exported).run
    inputs = parity.posterior_inputs(spline, 7, seed=3)
    found = parity.chain(run, inputs)
    flux, ivar = (
        run("prepare", {k: inputs[k] for k in ("flux", "ivar")})[f"normalised_{k}"] for k in ("flux", "ivar")
    )
    expected = np.asarray(spline.log_prob(inputs["labels"], flux, ivar))
    np.testing.assert_allclose(found["log_prob"], expected, rtol=2e-4, atol=2e-4)
    again = run(
        "log_prob",
        {
            "context": run("encode", {"normalised_flux": flux, "normalised_ivar": ivar})["context"],
            "labels": found["labels"],
        },
    )
    np.testing.assert_allclose(again["log_prob"], found["log_prob of draws"], atol=5e-2)
    assert np.isfinite(found["labels"]).all()


@pytest.mark.parametrize(
    "coupling, fit",
    [
        ("spline", False),
        ("affine", False),
        ("autoregressive", False),
    ],
)
def test_every_network_is_translated_with_parity(coupling, fit):
    """All graphs but the normalisation, whose translation takes half a minute: it is in the tests of whole
    exports below."""
    posterior = network(coupling, fit)
    graphs = {graph.name: graph for graph in posterior_graphs(posterior)}
    compiled = {name: jax.jit(graph.function) for name, graph in graphs.items()}
    sessions = {
        name: onnx_session(to_onnx(graph.function, graph.specs(), graph.outputs, name))
        for name, graph in graphs.items()
        if name != "prepare"
    }

    def by_jax(name, inputs):
        outputs = compiled[name](*(inputs[k] for k in graphs[name].inputs))
        return dict(zip(graphs[name].outputs, map(np.asarray, outputs), strict=True))

    def by_onnx(name, inputs):
        return run_onnx(sessions[name], inputs) if name in sessions else by_jax(name, inputs)

    inputs = parity.posterior_inputs(posterior)
    expected, rounded = (parity.chain(by_jax, x) for x in (inputs, parity.nudged(inputs)))
    ranges = {"labels": posterior.label_set.high - posterior.label_set.low}
    report = parity.judge("ONNX", parity.chain(by_onnx, inputs), expected, rounded, ranges)
    for values in report.values():
        assert values["median_allowed"] < 1e-3


def test_what_cannot_be_exported_is_refused_by_name():
    with pytest.raises(InputError, match=r"matching.*differential equation"):
        posterior_graphs(network("matching"))
    with pytest.raises(InputError, match="ensemble"):
        posterior_graphs([])


@pytest.mark.slow  # a whole export
def test_a_changed_weight_is_refused(exported, tmp_path):
    """One byte of one weight: the file still runs, and is not the one that was checked."""
    folder = tmp_path / "model"
    shutil.copytree(exported, folder)
    load_export(folder)
    path = folder / "encode.onnx"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"encode\.onnx.*sha256"):
        load_export(folder)
    path.unlink()
    with pytest.raises(InputError, match="no such file"):
        load_export(folder)


def test_the_gate_refuses_another_model():
    """Numbers that are off by more than rounding, or are not finite where the model's are."""
    expected = {"labels": np.ones((4, 8), np.float32)}
    rounded = {"labels": expected["labels"] * np.float32(1.0 + 1e-7)}
    parity.judge("ONNX", rounded, expected, rounded, {})
    for wrong in (1.0 + 1e-5, np.nan):
        found = {"labels": expected["labels"].copy()}
        found["labels"][1, 2] *= wrong
        with pytest.raises(InputError, match=r"ONNX, labels.*\(1, 2\)"):
            parity.judge("ONNX", found, expected, rounded, {})


@pytest.mark.slow  # a whole export
def test_metadata_say_what_a_consumer_needs(exported):
    config = json.loads((exported / "config.json").read_text())
    settings = config["settings"]
    assert [x["name"] for x in settings["labels"]][:2] == ["teff", "logg"] and settings["labels"][0][
        "unit"
    ] == "K"
    assert settings["graphs"]["sample"]["inputs"]["noise"] == ["n_draws", "n_stars", 9]
    assert settings["instrument"]["n_pixels"] == 1100 and config["domain"]["instrument"] == "toy"
    assert "jax2onnx" in config["versions"] and "jax" in config["versions"]


@pytest.mark.slow  # a whole export
def test_an_export_is_a_folder_of_weights_too(exported, spline):
    again, folder = load_weights(exported)
    assert folder.name == "posterior" and again.instrument == spline.instrument


def test_the_command_tells_kinds_apart(tmp_path):
    (tmp_path / "config.json").write_text('{"kind": "emulator"}')
    assert command.is_emulator(str(tmp_path)) and not command.is_emulator(str(tmp_path / "nowhere"))
    (tmp_path / "config.json").write_text("[1]")
    assert not command.is_emulator(str(tmp_path))
