"""The server: the command's numbers, its clients, and what wrong requests are told."""

import asyncio
import dataclasses
import json
import threading
import time

import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("prometheus_client")

import urllib.error
import urllib.request

from jaxspec.errors import InputError
from jaxspec.inference import InferenceConfig, infer
from jaxspec.physics.forward import Nuisances
from jaxspec.reading import ReaderConfig, read_for
from jaxspec.runs import named_key
from jaxspec.serving.engine import Engine
from jaxspec.serving.server import ServerConfig, make_app

CONFIG = InferenceConfig(n_draws=20, refine="none", check=False)
READER = ReaderConfig(resolving_power=20_000.0, frame="rest")


@pytest.fixture(scope="module")
def engine(spline, toy):
    return Engine(spline, toy, CONFIG, READER)


@pytest.fixture(scope="module")
def spectrum(toy):
    """Noisy, on a grid of its own, longer than the arms."""
    rng = np.random.default_rng(0)
    labels = np.array([5600.0, 4.3, -0.2, -0.2, -0.1, -0.2, -0.2, -0.1, -0.2], np.float32)
    model = np.asarray(toy(jnp.asarray(labels), Nuisances(1.1, 3.0, 2.0, 0.0, 1.0)))
    grid = toy.instrument.wavelength
    wavelength = np.concatenate([np.arange(5328.0, 5362.0, 0.04), np.arange(8498.0, 8552.0, 0.07)])
    flux = 500.0 * np.interp(wavelength, grid, model) * (1.0 + 0.01 * rng.normal(size=len(wavelength)))
    return wavelength, flux, np.full(len(wavelength), (0.01 * 500.0) ** -2)


@pytest.fixture(scope="module")
def address(engine):
    """A server at a port of its own, in a thread."""
    import uvicorn

    app = make_app(engine, ServerConfig(deadline=0.05, megabytes=1.0))
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", ws="none"))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield f"127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(20)


def call(address, path, content=None, headers=None):
    """Status, headers and JSON of an answer."""
    request = urllib.request.Request(f"http://{address}{path}", content, headers or {})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def tensor(name, values):
    values = np.asarray(values, float)
    return {"name": name, "datatype": "FP64", "shape": list(values.shape), "data": values.ravel().tolist()}


def body(spectrum, *more, **rest):
    wavelength, flux, ivar = spectrum
    inputs = [tensor("wavelength", wavelength), tensor("flux", [flux]), tensor("ivar", [ivar]), *more]
    return {"inputs": inputs, **rest}


def ask(address, request, **headers):
    status, _, content = call(address, "/v2/models/jaxspec/infer", json.dumps(request).encode(), headers)
    return status, json.loads(content)


def arrays(answer):
    return {x["name"]: np.array(x["data"], float).reshape(x["shape"]) for x in answer["outputs"]}


def test_labels_are_those_of_the_command(address, spectrum, spline, toy, tmp_path):
    """For the same spectrum, read from a file, and the same seed."""
    wavelength, flux, ivar = spectrum
    lines = [
        f"{w!r} {f!r} {e!r}"
        for w, f, e in zip(*map(np.ndarray.tolist, (wavelength, flux, ivar**-0.5)), strict=True)
    ]
    (tmp_path / "star.txt").write_text("\n".join(["wavelength flux error", *lines]))
    spectra, _ = read_for(tmp_path / "star.txt", toy, READER)
    for seed in (1, 7):
        expected = infer(spectra, spline, CONFIG, key=named_key(seed, "inference"), forward=toy)
        status, answer = ask(address, body(spectrum, parameters={"seed": seed}))
        assert status == 200, answer
        found = arrays(answer)
        np.testing.assert_allclose(found["labels"], expected.labels, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(found["errors"], expected.errors, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(found["flags"], expected.flags)
        np.testing.assert_allclose(found["quantiles"][:, 1], expected.labels, rtol=1e-5, atol=1e-5)
    assert "medium" in answer["parameters"]["assumed"]


def test_clients_at_once_get_the_answers_they_would_get_alone(address, spectrum):
    wavelength, flux, ivar = spectrum
    rng = np.random.default_rng(1)
    requests = [
        body((wavelength, flux * (1.0 + 0.01 * rng.normal(size=len(flux))), ivar), parameters={"seed": i})
        for i in range(8)
    ]
    alone = [ask(address, request)[1] for request in requests]
    together = [None] * len(requests)

    def client(i):
        together[i] = ask(address, requests[i])[1]

    threads = [threading.Thread(target=client, args=(i,)) for i in range(len(requests))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for one, other in zip(alone, together, strict=True):
        for name, values in arrays(one).items():
            np.testing.assert_allclose(arrays(other)[name], values, rtol=2e-4, atol=2e-4, err_msg=name)
    _, _, metrics = call(address, "/metrics")
    lines = dict(line.rsplit(" ", 1) for line in metrics.decode().splitlines() if line[:1] != "#")
    assert float(lines["jaxspec_batch_spectra_count"]) < float(lines["jaxspec_spectra_total"])
    assert float(lines['jaxspec_requests_total{status="200"}']) >= 16


def test_outputs_on_demand(address, spectrum):
    request = body(spectrum, outputs=[{"name": "draws"}, {"name": "labels"}], id="x")
    status, answer = ask(address, request)
    assert status == 200 and answer["id"] == "x"
    found = arrays(answer)
    assert found["draws"].shape == (1, 20, 9)
    np.testing.assert_allclose(np.median(found["draws"], 1), found["labels"], rtol=1e-5)


def test_health_and_metadata(address):
    for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/jaxspec/ready", "/v2"):
        assert call(address, path)[0] == 200
    status, _, content = call(address, "/v2/models/jaxspec")
    about = json.loads(content)
    assert status == 200 and about["inputs"][0] == {"name": "flux", "datatype": "FP64", "shape": [-1, -1]}
    assert json.loads(about["parameters"]["labels"])[0]["unit"] == "K"
    assert (
        call(address, "/v2/models/other")[0] == 404
        and call(address, "/v2/models/jaxspec/versions/9")[0] == 404
    )


@pytest.mark.parametrize(
    "change, status, what",
    [
        (lambda r: r["inputs"].pop(0), 400, "input wavelength"),
        (lambda r: r["inputs"].append(tensor("more", [1])), 400, "'more'"),
        (lambda r: r["inputs"][1]["data"].__setitem__(500, None), 400, "inputs, flux"),
        (lambda r: r["inputs"][2]["data"].__setitem__(500, -1.0), 400, "inputs, ivar"),
        (lambda r: r["inputs"][0]["data"].__setitem__(500, 1.0), 400, "inputs, wavelength"),
        (lambda r: r["inputs"][2].update(shape=[1, 3], data=[1, 1, 1]), 400, "input ivar"),
        (lambda r: r["inputs"][2].update(data=[0.0] * len(r["inputs"][2]["data"])), 400, "spectrum 0"),
        (
            lambda r: r["inputs"][0].update(data=[x + 5000.0 for x in r["inputs"][0]["data"]]),
            400,
            "spectrum 0",
        ),
        (lambda r: r["inputs"].append(tensor("velocity", [1.0, 2.0])), 400, "input velocity"),
        (lambda r: r.update(parameters={"seed": "one"}), 400, "parameter seed"),
        (lambda r: r.update(parameters={"seed": -1}), 400, "parameter seed"),
        (lambda r: r.update(parameters={"velocity": "guess"}), 400, "parameter velocity"),
        (lambda r: r.update(parameters={"medium": "water"}), 400, "medium"),
        (lambda r: r.update(parameters={"path": "/etc/passwd"}), 400, "'path'"),
        (lambda r: r.update(outputs=[{"name": "files"}]), 400, "'files'"),
        (lambda r: r["inputs"][1].update(data=[1.0] * 10**6), 413, "1 MB"),
    ],
)
def test_broken_requests_are_told_what_is_wrong(address, spectrum, change, status, what):
    request = body(spectrum)
    change(request)
    found, answer = ask(address, request)
    assert found == status and what in answer["error"], answer


def test_other_wrong_calls(address):
    assert call(address, "/v2/models/jaxspec/infer", b"{")[0] == 400
    assert call(address, "/v2/models/jaxspec/infer")[0] == 405
    assert call(address, "/v2/models/jaxspec/infer", b"x", {"content-encoding": "gzip"})[0] == 415


def test_no_other_machine_is_answered_without_a_token(engine, spectrum):
    with pytest.raises(InputError, match="token"):
        ServerConfig(host="0.0.0.0")
    from starlette.testclient import TestClient

    config = dataclasses.replace(ServerConfig(), host="0.0.0.0", token="secret")
    with TestClient(make_app(engine, config)) as client:
        assert client.get("/v2/health/ready").status_code == 200
        assert client.post("/v2/models/jaxspec/infer", json=body(spectrum)).status_code == 401
        wrong = client.get("/v2/models/jaxspec", headers={"Authorization": "Bearer guess"})
        assert wrong.status_code == 401
        right = client.get("/v2/models/jaxspec", headers={"Authorization": "Bearer secret"})
        assert right.status_code == 200


def test_a_full_queue_says_when_to_come_back(engine, spectrum):
    from starlette.testclient import TestClient

    with TestClient(make_app(engine, ServerConfig(queue=1))) as client:
        two = body(spectrum)
        two["inputs"][1:] = [tensor("flux", [spectrum[1]] * 2), tensor("ivar", [spectrum[2]] * 2)]
        answer = client.post("/v2/models/jaxspec/infer", json=two)
        assert answer.status_code == 503 and int(answer.headers["retry-after"]) > 0


def test_tritonclient(address, spectrum):
    triton = pytest.importorskip("tritonclient.http")
    client = triton.InferenceServerClient(address)
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("jaxspec")
    assert client.get_model_metadata("jaxspec")["platform"] == "jaxspec"
    wavelength, flux, ivar = spectrum
    inputs = []
    for name, values in {"wavelength": wavelength, "flux": flux[None], "ivar": ivar[None]}.items():
        inputs.append(triton.InferInput(name, values.shape, "FP64"))
        inputs[-1].set_data_from_numpy(np.ascontiguousarray(values))
    outputs = [triton.InferRequestedOutput(name) for name in ("labels", "flags")]
    expected = arrays(ask(address, body(spectrum, parameters={"seed": 5}))[1])
    for wanted in (None, outputs):
        result = client.infer("jaxspec", inputs, outputs=wanted, parameters={"seed": 5}, request_id="t")
        np.testing.assert_array_equal(result.as_numpy("labels"), expected["labels"])
        np.testing.assert_array_equal(result.as_numpy("flags"), expected["flags"])
    with pytest.raises(Exception, match="wavelength"):
        client.infer("jaxspec", inputs[1:])


def test_kserve_client(address, spectrum):
    kserve = pytest.importorskip("kserve")
    wavelength, flux, ivar = spectrum
    inputs = []
    for name, values in {"wavelength": wavelength, "flux": flux[None], "ivar": ivar[None]}.items():
        inputs.append(kserve.InferInput(name, list(values.shape), "FP64"))
        inputs[-1].set_data_from_numpy(values, binary_data=False)

    async def go():
        client = kserve.InferenceRESTClient(kserve.inference_client.RESTConfig(protocol="v2", timeout=60))
        assert await client.is_server_live(f"http://{address}")
        request = kserve.InferRequest(model_name="jaxspec", infer_inputs=inputs)
        return await client.infer(f"http://{address}", request, model_name="jaxspec")

    response = asyncio.run(go())
    expected = arrays(ask(address, body(spectrum))[1])
    labels = next(x for x in response.outputs if x.name == "labels").as_numpy()
    np.testing.assert_allclose(labels, expected["labels"])
