"""JAX functions as ONNX graphs.

A function is traced and taken apart into primitives first, and jax2onnx translates those. Left to trace by
itself it replaces functions of `jax.numpy` and Flax by its own, which take fewer arguments. ONNX Runtime has
no complex numbers: they become pairs of real ones here, and Fourier transforms two matrix products each.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import export as jax_export
from jax import lax
from jax.extend import core

from jaxspec.errors import InputError

OPSET = 18
FOLDED = 100_000  # largest array of constants that is worked out beforehand
INLINED = {"jit": "jaxpr", "pjit": "jaxpr", "closed_call": "call_jaxpr", "custom_jvp_call": "call_jaxpr"}
INLINED |= {"custom_vjp_call": "call_jaxpr", "remat2": "jaxpr", "checkpoint": "jaxpr"}
# Primitives that do to a complex array what they do to its two parts.
BY_PART = {
    "broadcast_in_dim",
    "reshape",
    "transpose",
    "slice",
    "concatenate",
    "squeeze",
    "copy",
    "neg",
    "add",
}
BY_PART |= {"sub", "add_any", "reduce_sum", "expand_dims", "pad"}
DROPPED = {"stop_gradient", "optimization_barrier", "copy", "copy_p"}


class Complex(NamedTuple):
    """A complex array as two real ones."""

    real: Any
    imag: Any


def to_onnx(
    function: Callable[..., Any],
    inputs: Mapping[str, jax.ShapeDtypeStruct],
    outputs: Sequence[str],
    name: str,
) -> bytes:
    """The ONNX model of `function(*inputs)`, serialised.

    Args:
        inputs: shape and type by name; dimensions may be symbols of `jax.export.symbolic_shape`.
        outputs: names of the results, in their order.

    Raises: InputError when the extra `export` is not installed, or an operation has no translation.
    """
    specs = tuple(inputs.values())
    flat = flatten(function, specs)
    try:
        with _jax2onnx() as convert:
            model = convert(
                lambda *values: tuple(evaluate(flat.jaxpr, flat.consts, *values)),
                specs,
                model_name=name,
                opset=OPSET,
                input_names=list(inputs),
                output_names=list(outputs),
            )
    except NotImplementedError as error:
        raise InputError(
            f"export of {name}",
            f"an operation without a translation ({str(error)[:200]})",
            "operations that ONNX has",
            "use the StableHLO file, which has them all",
        ) from error
    return model.SerializeToString()


def flatten(function: Callable[..., Any], specs: Sequence[jax.ShapeDtypeStruct]) -> core.ClosedJaxpr:
    """The primitives of a function, without calls, loops or complex numbers."""
    traced = jax.make_jaxpr(function)(*specs)
    return jax.make_jaxpr(lambda *values: evaluate(traced.jaxpr, traced.consts, *values))(*specs)


def evaluate(jaxpr: core.Jaxpr, consts: Sequence[Any], *values: Any) -> list[Any]:
    """The results of a jaxpr: calls within it taken apart, loops of known length written out, complex numbers
    in pairs."""
    known: dict[Any, Any] = {}

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, core.Literal) else known[atom]

    known.update(zip(jaxpr.constvars, consts, strict=True))
    known.update(zip(jaxpr.invars, values, strict=True))
    for equation in jaxpr.eqns:
        inputs, name = [_paired(read(atom)) for atom in equation.invars], equation.primitive.name
        avals: list[Any] = [v.aval for v in equation.outvars]
        complex_out = any(jnp.issubdtype(aval.dtype, jnp.complexfloating) for aval in avals)
        if name in INLINED:
            inner = equation.params[INLINED[name]]
            closed = (inner.jaxpr, inner.consts) if hasattr(inner, "consts") else (inner, [])
            outputs = evaluate(*closed, *inputs)
        elif name == "scan":
            outputs = _unrolled(equation.params, inputs)
        elif name in DROPPED:
            outputs = inputs
        elif name == "pad" and not any(isinstance(x, Complex) for x in inputs):
            array, value = inputs
            outputs = [_padded(array, value, equation.params["padding_config"])]
        elif name == "stack":
            axis = equation.params["axis"]
            outputs = [lax.concatenate([lax.expand_dims(x, (axis,)) for x in inputs], axis)]
        elif name in ("gather", "scatter", "scatter-add") and not isinstance(inputs[1], jax.core.Tracer):
            outputs = [_moved(equation, name, inputs)]
        elif name == "dot_general":
            left, right = inputs
            outputs = [_product(left, right, equation.params)]
        elif name == "platform_index":
            outputs = [_default_platform(equation.params["platforms"])]
        elif name == "cond" and not isinstance(inputs[0], jax.core.Tracer):
            branch = equation.params["branches"][int(inputs[0])]
            outputs = evaluate(branch.jaxpr, branch.consts, *inputs[1:])
        elif complex_out or any(isinstance(x, Complex) for x in inputs):
            outputs = [_complex(equation, name, inputs)]
        else:
            with jax.ensure_compile_time_eval() if _known(equation, inputs) else nullcontext():
                result = equation.primitive.bind(*inputs, **equation.params)
            outputs = result if equation.primitive.multiple_results else [result]
        known.update(zip(equation.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _known(equation: Any, inputs: list[Any]) -> bool:
    """Whether an equation is of numbers that count, and can be worked out now, such as the index of a loop
    that is written out."""
    if any(isinstance(x, jax.core.Tracer) for x in inputs):
        return False
    for result in equation.outvars:
        shape, dtype = result.aval.shape, result.aval.dtype
        if not all(isinstance(n, int) for n in shape) or int(np.prod(shape)) > FOLDED:
            return False
        if not (jnp.issubdtype(dtype, jnp.integer) or dtype == jnp.bool_):
            return False
    return True


def _product(left: Any, right: Any, params: Mapping[str, Any]) -> Any:
    """`lax.dot_general` with batches first, and what is summed last on the left and next on the right: with
    a number of stars that is not known, jax2onnx multiplies as if it were so."""
    (sum_left, sum_right), (batch_left, batch_right) = params["dimension_numbers"]
    free_left = [i for i in range(left.ndim) if i not in (*sum_left, *batch_left)]
    free_right = [i for i in range(right.ndim) if i not in (*sum_right, *batch_right)]
    left = _ordered(left, (*batch_left, *free_left, *sum_left))
    right = _ordered(right, (*batch_right, *sum_right, *free_right))
    n_batch, n_sum = len(batch_left), len(sum_left)
    batch = tuple(range(n_batch))
    contract = tuple(range(left.ndim - n_sum, left.ndim)), tuple(range(n_batch, n_batch + n_sum))
    return lax.dot_general_p.bind(left, right, **{**params, "dimension_numbers": (contract, (batch, batch))})


def _ordered(x: Any, order: Sequence[int]) -> Any:
    return x if list(order) == list(range(x.ndim)) else lax.transpose(x, order)


def _padded(x: Any, value: Any, config: Sequence[tuple[Any, Any, Any]]) -> Any:
    """`lax.pad` by joining arrays, which may have as many rows as there will be stars."""
    for axis, (low, high, between) in enumerate(config):
        if between:
            raise NotImplementedError("padding between elements")
        x = lax.slice_in_dim(x, max(-low, 0), x.shape[axis] + min(high, 0), axis=axis)
        ends = [(*x.shape[:axis], max(n, 0), *x.shape[axis + 1 :]) for n in (low, high)]
        before, after = ([lax.full(shape, value, x.dtype)] if shape[axis] else [] for shape in ends)
        x = lax.concatenate([*before, x, *after], axis) if before or after else x
    return x


def _moved(equation: Any, name: str, inputs: list[Any]) -> Any:
    """A gather, or scatter, from places that are known: those are worked out on numbered elements, and taken
    from flat arrays. The first axes may be of any size."""
    operand, indices, *updates = inputs
    params = dict(equation.params)
    n_lead = next((i for i, n in enumerate(operand.shape) if isinstance(n, int)), operand.ndim)
    lead, ones = operand.shape[:n_lead], (1,) * n_lead

    def numbered(shape: tuple[Any, ...]) -> np.ndarray:
        shape = (*ones, *shape[n_lead:])
        return np.arange(int(np.prod(shape)), dtype=np.int32).reshape(shape)

    def taken(x: Any, places: np.ndarray) -> Any:
        x = lax.reshape(x, (*lead, int(np.prod(x.shape[len(lead) :]))))
        first, step = int(places[0]), int(places[1] - places[0]) if len(places) > 1 else 1
        if step > 0 and np.array_equal(places, first + step * np.arange(len(places))):
            return lax.slice_in_dim(x, first, int(places[-1]) + 1, step, axis=len(lead))
        return jnp.take(x, places, axis=len(lead), mode="clip")

    with jax.ensure_compile_time_eval():
        if name == "gather":
            params["slice_sizes"] = (*ones, *params["slice_sizes"][n_lead:])
            table = np.asarray(equation.primitive.bind(numbered(operand.shape), indices, **params))
        else:
            blank = jnp.full_like(numbered(operand.shape), -1)
            source, numbers = jnp.asarray(numbered(updates[0].shape)), params["dimension_numbers"]
            table = np.asarray(lax.scatter(blank, indices, source, numbers, mode=params["mode"]))
    if name == "gather":
        out = taken(operand, table.reshape(-1))
        return lax.reshape(out, (*lead, *table.shape[len(lead) :]))
    count = int(np.prod(updates[0].shape[len(lead) :]))
    if sorted(table[table >= 0].tolist()) != list(range(count)):
        raise NotImplementedError("a scatter to the same place twice, or beyond the end")
    new = taken(updates[0], np.maximum(table, 0).reshape(-1))
    new = lax.reshape(new, operand.shape)
    here = np.broadcast_to(table >= 0, (*ones, *operand.shape[n_lead:]))
    return jnp.where(here, new if name == "scatter" else operand + new, operand)


def _default_platform(platforms: Sequence[Sequence[str] | None]) -> int:
    """Which branch of code that differs between platforms: that of all others, or of a processor."""
    return next(i for i, names in enumerate(platforms) if names is None or "cpu" in names)


def _unrolled(params: Mapping[str, Any], inputs: list[Any]) -> list[Any]:
    n_consts, n_carry, body = params["num_consts"], params["num_carry"], params["jaxpr"]
    consts, carry = inputs[:n_consts], inputs[n_consts : n_consts + n_carry]
    rows, collected = inputs[n_consts + n_carry :], []
    order = list(range(params["length"]))
    for i in reversed(order) if params["reverse"] else order:
        row = (lax.index_in_dim(x, i, 0, keepdims=False) for x in rows)
        out = evaluate(body.jaxpr, body.consts, *consts, *carry, *row)
        carry = out[:n_carry]
        collected.append([lax.expand_dims(x, (0,)) for x in out[n_carry:]])
    if params["reverse"]:
        collected.reverse()
    return [*carry, *(lax.concatenate(column, 0) for column in zip(*collected, strict=True))]


def _paired(value: Any) -> Any:
    if isinstance(value, Complex) or not jnp.issubdtype(jnp.result_type(value), jnp.complexfloating):
        return value
    return Complex(np.real(value), np.imag(value))


def _complex(equation: Any, name: str, inputs: list[Any]) -> Any:
    parts = [x if isinstance(x, Complex) else Complex(x, jnp.zeros_like(x)) for x in inputs]
    if name == "fft":
        kind, lengths = equation.params["fft_type"], equation.params["fft_lengths"]
        if kind == lax.FftType.IRFFT and len(lengths) == 1:
            return _irfft(parts[0], lengths[0])
        if kind == lax.FftType.RFFT and len(lengths) == 1:
            return _rfft(inputs[0], lengths[0])
    if name in ("real", "imag"):
        return getattr(parts[0], name)
    if name == "complex":
        return Complex(*inputs)
    if name == "convert_element_type":
        return Complex(*(lax.convert_element_type(x, jnp.float32) for x in parts[0]))
    if name == "mul":
        a, b = parts
        return Complex(a.real * b.real - a.imag * b.imag, a.real * b.imag + a.imag * b.real)
    if name == "exp":
        size = jnp.exp(parts[0].real)
        return Complex(size * jnp.cos(parts[0].imag), size * jnp.sin(parts[0].imag))
    if name in BY_PART:
        return Complex(*(equation.primitive.bind(*xs, **equation.params) for xs in zip(*parts, strict=True)))
    raise NotImplementedError(f"{name} of complex numbers")


@lru_cache(maxsize=8)
def _stages(n: int) -> tuple[int, int, int, np.ndarray, np.ndarray, np.ndarray]:
    """n = n1 n2 with both near its root, the parts of frequencies of a real transform, and the matrices of
    its two stages with the factors between (Cooley & Tukey 1965)."""
    n1 = max(i for i in range(1, int(np.sqrt(n)) + 1) if n % i == 0)
    n2 = n // n1
    half = (n // 2) // n1 + 1
    turn = -2j * np.pi
    first = np.exp(turn * np.outer(np.arange(n1), np.arange(n1)) / n1)
    between = np.exp(turn * np.outer(np.arange(n1), np.arange(n2)) / n)
    second = np.exp(turn * np.outer(np.arange(n2), np.arange(half)) / n2)
    return n1, n2, half, first, between, second


def _rfft(x: Any, n: int) -> Complex:
    n1, n2, half, first, between, second = _stages(n)
    x = x.reshape(*x.shape[:-1], n1, n2)
    a, b = (jnp.matmul(_f32(part), x) for part in (first.real, first.imag))
    c, s = _f32(between.real), _f32(between.imag)
    a, b = a * c - b * s, a * s + b * c
    c, s = _f32(second.real), _f32(second.imag)
    parts = (a @ c - b @ s, a @ s + b @ c)
    last = [jnp.swapaxes(y, -1, -2).reshape(*y.shape[:-2], half * n1)[..., : n // 2 + 1] for y in parts]
    return Complex(*last)


def _irfft(x: Complex, n: int) -> Any:
    n1, _, half, first, between, second = _stages(n)
    twice = np.full(n // 2 + 1, 2.0 / n)
    twice[0] = 1.0 / n
    if n % 2 == 0:
        twice[-1] = 1.0 / n
    rest = half * n1 - (n // 2 + 1)
    padding = [(0, 0)] * (x.real.ndim - 1) + [(0, rest)]
    a, b = (jnp.pad(y * _f32(twice), padding) for y in x)
    a, b = (jnp.swapaxes(y.reshape(*y.shape[:-1], half, n1), -1, -2) for y in (a, b))
    c, s = _f32(second.real.T), _f32(-second.imag.T)
    a, b = a @ c - b @ s, a @ s + b @ c
    c, s = _f32(between.real), _f32(-between.imag)
    a, b = a * c - b * s, a * s + b * c
    y = jnp.matmul(_f32(first.real), a) - jnp.matmul(_f32(-first.imag), b)
    return y.reshape(*y.shape[:-2], n)


def _f32(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x, np.float32)


@contextmanager
def _jax2onnx() -> Iterator[Callable[..., Any]]:
    """Its `to_onnx`, mended for the time being. What it replaces for good when it is imported is put back:
    `jnp.cumsum(x, 0)` would be an error.

    Raises: InputError when it is not installed.
    """
    changed = [(module, dict(vars(module))) for module in (jax, jnp, jax.lax, jax.nn, jnp.linalg)]
    try:
        import jax2onnx
        from jax2onnx.converter import conversion_api
        from onnx_ir import _core
    except ImportError as error:
        raise InputError(
            "export",
            f"no package {error.name}",
            "jax2onnx, onnx and onnxruntime",
            'install them with pip install "jaxspec[export]"',
        ) from error
    loggers = [logging.getLogger(name) for name in ("jax2onnx", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:  # they tell of every value without a type
        logger.setLevel(logging.CRITICAL)
    plain, optimise = _core._maybe_convert_to_symbolic_dim, conversion_api.optimize_graph

    def understood(dim: Any) -> Any:
        return plain(str(dim) if jax_export.is_symbolic_dim(dim) else dim)

    # Some translations hand symbols of JAX to onnx_ir, which takes numbers and strings.
    _core._maybe_convert_to_symbolic_dim = understood
    # The time of its optimiser grows with the square of the graph's size; ONNX Runtime has its own.
    conversion_api.optimize_graph = lambda model: model
    try:
        yield jax2onnx.to_onnx
    finally:
        _core._maybe_convert_to_symbolic_dim, conversion_api.optimize_graph = plain, optimise
        for module, before in changed:
            for name, value in before.items():
                if vars(module).get(name) is not value:
                    setattr(module, name, value)
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
