"""Requests and responses of the Open Inference Protocol, and what is wrong with wrong ones."""

import json

import numpy as np
import pytest

from jaxspec.errors import InputError
from jaxspec.serving.protocol import HEADER_LENGTH, read_request, write_response


def tensor(**changes):
    return {"name": "flux", "datatype": "FP32", "shape": [2, 2], "data": [1, 2, 3, 4.5]} | changes


def body(*tensors, **rest):
    return json.dumps({"inputs": list(tensors), **rest}).encode()


def test_numbers_come_flat_nested_or_binary():
    array = np.array([[1, 2], [3, 4.5]], np.float32)
    for data in ([1, 2, 3, 4.5], array.tolist()):
        request = read_request(body(tensor(data=data), id="a", parameters={"seed": 3}))
        np.testing.assert_array_equal(request.inputs["flux"], array)
        assert request.inputs["flux"].dtype == np.float32
        assert request.id == "a" and request.parameters == {"seed": 3} and request.outputs is None
    entries = [tensor(parameters={"binary_data_size": 16}), tensor(name="b", data=[0, 0, 0, 0])]
    entries.append(tensor(name="c", datatype="INT64", shape=[1], parameters={"binary_data_size": 8}))
    for entry in entries[::2]:
        del entry["data"]
    head = body(*entries, outputs=[{"name": "x", "parameters": {"binary_data": True}}, {"name": "y"}])
    request = read_request(head + array.tobytes() + np.int64(-7).tobytes(), str(len(head)))
    np.testing.assert_array_equal(request.inputs["flux"], array)
    assert request.inputs["c"].tolist() == [-7] and request.outputs == {"x": True, "y": False}
    assert np.isnan(read_request(body(tensor(data=[None, 1, 2, 3]))).inputs["flux"][0, 0])


@pytest.mark.parametrize(
    "content, length, what",
    [
        (b"{", None, "request.*JSON"),
        (b"[" * 100_000, None, "request.*JSON"),
        (b"[]", None, "request"),
        (b"{}", None, "inputs"),
        (b'{"inputs": [3]}', None, "inputs"),
        (body(tensor(name=None)), None, "name"),
        (body(tensor(), tensor()), None, "flux.*twice"),
        (body(tensor(datatype="BYTES")), None, "flux, datatype"),
        (body(tensor(datatype=["FP32"])), None, "flux, datatype"),
        (body(tensor(shape=[2, -2])), None, "flux, shape"),
        (body(tensor(shape="22")), None, "flux, shape"),
        (body(tensor(shape=[10**9, 10**9])), None, "flux, data"),
        (body(tensor(shape=[3, 2])), None, "flux, data.*4 numbers"),
        (body(tensor(data=[1, 2, 3, "4"])), None, "flux, data"),
        (body(tensor(data=[[1, 2], [3]])), None, "flux, data"),
        (body(tensor(data=None)), None, "flux, data"),
        (body(tensor(datatype="INT8", data=[1, 2, 3, 1e9])), None, "flux, data"),
        (body(tensor(parameters={"binary_data_size": 16})), None, "binary_data_size"),
        (body(tensor(parameters={"binary_data_size": -1})), None, "binary_data_size"),
        (body(tensor(parameters=[])), None, "flux, parameters"),
        (body(tensor()), "1000000", HEADER_LENGTH),
        (body(tensor()), "-1", HEADER_LENGTH),
        (body(tensor()) + b"more", str(len(body(tensor()))), "4 bytes after"),
        (body(tensor(), outputs=3), None, "outputs"),
        (body(tensor(), id=3), None, "id"),
    ],
)
def test_wrong_requests_are_told_what_is_wrong(content, length, what):
    with pytest.raises(InputError, match=what):
        read_request(content, length)


def test_responses_are_read_back():
    outputs = {"labels": np.array([[1.5, np.nan]]), "flags": np.array([3])}
    asked = read_request(body(tensor(), id="q"))
    content, headers = write_response("m", "1", asked, outputs, {"refine": "none"})
    response = json.loads(content)
    assert response["id"] == "q" and response["model_name"] == "m"
    assert response["parameters"] == {"refine": "none"}
    labels = {"name": "labels", "datatype": "FP64", "shape": [1, 2], "data": [1.5, None]}
    assert response["outputs"][0] == labels
    assert headers == {"content-type": "application/json"}
    asked = read_request(body(tensor(), parameters={"binary_data_output": True}))
    content, headers = write_response("m", "1", asked, outputs, {})
    n = int(headers[HEADER_LENGTH])
    sizes = [x["parameters"]["binary_data_size"] for x in json.loads(content[:n])["outputs"]]
    assert sizes == [16, 8] and len(content) == n + 24
    np.testing.assert_array_equal(np.frombuffer(content[n : n + 16]), [1.5, np.nan])
