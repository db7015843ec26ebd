"""The Open Inference Protocol, version 2: tensors in requests and responses, as JSON or as binary data.

(https://github.com/kserve/open-inference-protocol; the binary extension is that of Triton's servers and
clients.)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxspec.errors import InputError

HEADER_LENGTH = "inference-header-content-length"
TYPES: dict[str, Any] = {
    "BOOL": np.bool_,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
}
NAMES = {np.dtype(kind): name for name, kind in TYPES.items()}


@dataclass(frozen=True)
class Request:
    """A client's request.

    Attributes:
        id: comes back with the response.
        inputs: arrays by name.
        parameters: of the request.
        outputs: names that are wanted, and whether as binary data; None: all that are given unasked.
        binary: whether outputs are binary where none is named.
    """

    id: str | None
    inputs: dict[str, np.ndarray]
    parameters: dict[str, Any]
    outputs: dict[str, bool] | None
    binary: bool


def read_request(body: bytes, header_length: str | None = None) -> Request:
    """A request from the body of a POST, and the header `Inference-Header-Content-Length` if there is one.

    Raises: InputError naming the part that cannot be used.
    """
    text, rest = body, b""
    if header_length is not None:
        if not header_length.isdigit() or int(header_length) > len(body):
            raise InputError(
                f"header {HEADER_LENGTH}",
                header_length,
                f"a number up to {len(body)}",
                "count the JSON's bytes",
            )
        text, rest = body[: int(header_length)], body[int(header_length) :]
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(
            "request", f"no JSON ({str(error)[:80]})", "a JSON object", "mend the body"
        ) from error
    _check("request", values, dict, "an object with inputs")
    inputs: dict[str, np.ndarray] = {}
    for entry in _check("inputs", values.get("inputs"), list, "a list of tensors"):
        name = _check("inputs, name", _check("inputs", entry, dict, "tensors").get("name"), str, "a string")
        where = f"input {name}"
        if name in inputs:
            raise InputError(where, "given twice", "once", "leave one out")
        size = _parameters(where, entry).get("binary_data_size")
        if size is None:
            inputs[name] = _tensor(where, entry, None)
            continue
        if type(size) is not int or not 0 <= size <= len(rest):
            raise InputError(
                f"{where}, binary_data_size",
                f"{size!r}",
                f"0 to {len(rest)} (what is left)",
                "send all the data",
            )
        inputs[name], rest = _tensor(where, entry, rest[:size]), rest[size:]
    if rest:
        raise InputError("request", f"{len(rest)} bytes after the last tensor", "none", "state their sizes")
    parameters = _parameters("request", values)
    wanted = None
    binary = bool(parameters.pop("binary_data_output", False))
    if values.get("outputs"):
        wanted = {}
        for entry in _check("outputs", values["outputs"], list, "a list of names"):
            name = _check(
                "outputs, name", _check("outputs", entry, dict, "objects").get("name"), str, "a string"
            )
            wanted[name] = bool(_parameters(f"output {name}", entry).get("binary_data", binary))
    request_id = values.get("id")
    if request_id is not None:
        _check("id", request_id, str, "a string")
    return Request(request_id, inputs, parameters, wanted, binary)


def write_response(
    model: str,
    version: str,
    request: Request,
    outputs: Mapping[str, np.ndarray],
    parameters: Mapping[str, Any],
) -> tuple[bytes, dict[str, str]]:
    """The body of a response, and its headers. Numbers that are not finite are null in JSON."""
    entries, tail = [], []
    for name, array in outputs.items():
        entry: dict[str, Any] = {"name": name, "datatype": NAMES[array.dtype], "shape": list(array.shape)}
        if request.binary if request.outputs is None else request.outputs[name]:
            content = np.ascontiguousarray(array).tobytes()
            entry["parameters"] = {"binary_data_size": len(content)}
            tail.append(content)
        else:
            entry["data"] = [x if np.isfinite(x) else None for x in array.reshape(-1).tolist()]
        entries.append(entry)
    answer: dict[str, Any] = {
        "model_name": model,
        "model_version": version,
        "parameters": dict(parameters),
        "outputs": entries,
    }
    if request.id is not None:
        answer["id"] = request.id
    head = json.dumps(answer).encode()
    if not tail:
        return head, {"content-type": "application/json"}
    return b"".join([head, *tail]), {
        "content-type": "application/octet-stream",
        HEADER_LENGTH: str(len(head)),
    }


def _check(where: str, value: Any, kind: type, expected: str) -> Any:
    if not isinstance(value, kind):
        found = "nothing" if value is None else type(value).__name__
        raise InputError(where, found, expected, "see the protocol's infer request")
    return value


def _parameters(where: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return dict(_check(f"{where}, parameters", values.get("parameters", {}), dict, "an object"))


def _tensor(where: str, entry: Mapping[str, Any], binary: bytes | None) -> np.ndarray:
    datatype, shape = entry.get("datatype"), entry.get("shape")
    if not isinstance(datatype, str) or datatype not in TYPES:
        raise InputError(
            f"{where}, datatype", f"{datatype!r}", f"one of {', '.join(TYPES)}", "convert the numbers"
        )
    if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape) or len(shape) > 8:
        raise InputError(f"{where}, shape", f"{str(shape)[:80]}", "a list of sizes", "write [1, 5600], say")
    kind, count = np.dtype(TYPES[datatype]), 1
    for n in shape:
        count *= n
    if binary is not None:
        if len(binary) != count * kind.itemsize:
            raise InputError(
                f"{where}, binary_data_size",
                f"{len(binary)} bytes",
                f"{count * kind.itemsize} for shape {shape} of {datatype}",
                "send the whole array",
            )
        return np.frombuffer(binary, kind.newbyteorder("<")).astype(kind).reshape(shape)
    try:
        # Nested lists are allowed; null stands for a number that is not finite.
        array = np.array(entry.get("data"))
        if array.dtype == object and kind.kind == "f" and _plain(array.reshape(-1).tolist()):
            array = array.astype(float)
        array = array.reshape(-1)
        if array.size and array.dtype.kind not in "fiub":
            raise ValueError(f"values of type {array.dtype}")
        exact = array.astype(kind) if kind.kind == "f" else np.array(array.tolist(), kind)
        if not np.array_equal(exact, array, equal_nan=True) and kind.kind != "f":
            raise ValueError("numbers that do not fit")
        array = exact
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(
            f"{where}, data", f"{str(error)[:120]}", f"numbers of {datatype}", "send numbers"
        ) from error
    if array.size != count:
        raise InputError(
            f"{where}, data", f"{array.size} numbers", f"{count} for shape {shape}", "send as many"
        )
    return array.reshape(shape)


def _plain(values: list[Any]) -> bool:
    return all(value is None or isinstance(value, (int, float)) for value in values)
