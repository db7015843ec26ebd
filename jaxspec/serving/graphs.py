"""The exported parts of a model: array functions with named inputs and outputs, at any number of stars."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import export

from jaxspec.amortised.amortised import AmortisedPosterior
from jaxspec.errors import InputError
from jaxspec.flows import MatchingFlow
from jaxspec.physics.emulator import Emulator
from jaxspec.simulation.preparation import prepare

STARS, DRAWS = "n_stars", "n_draws"


@dataclass(frozen=True)
class Graph:
    """One file.

    Attributes:
        name: of the file.
        function: from the inputs to the tuple of outputs.
        inputs: shape by name; `STARS` and `DRAWS` stand for any number.
        outputs: names.
    """

    name: str
    function: Callable[..., tuple[Any, ...]]
    inputs: dict[str, tuple[int | str, ...]]
    outputs: tuple[str, ...]

    def specs(self) -> dict[str, jax.ShapeDtypeStruct]:
        """The inputs, float32, with symbols for any number."""
        scope = export.SymbolicScope()
        symbols: dict[Any, Any] = {
            name: export.symbolic_shape(name, scope=scope)[0] for name in (STARS, DRAWS)
        }
        return {
            name: jax.ShapeDtypeStruct(tuple(symbols.get(n, n) for n in shape), jnp.float32)
            for name, shape in self.inputs.items()
        }


def posterior_graphs(posterior: Any) -> tuple[Graph, ...]:
    """`prepare` (flux and ivar on the instrument's pixels, any scale, to normalised ones), `encode` (these to
    the context), `sample` (context and normal noise to draws, their log-density, and whether the training's
    prior has such stars) and `log_prob` (context and labels to log-density).

    Raises: InputError naming what cannot be exported: ensembles, and flows that are trained by matching.
    """
    if not isinstance(posterior, AmortisedPosterior):
        raise InputError(
            "model", type(posterior).__name__, "one network", "export the networks of an ensemble one by one"
        )
    network, prior = posterior.network, posterior.prior
    if isinstance(network.flow, MatchingFlow):
        raise InputError(
            "model, flow.coupling",
            "matching",
            "spline, affine or autoregressive",
            "its density is the solution of a differential equation, whose divergence a solver follows by "
            "derivatives of the network: no graph of fixed operations. Train one of the others",
        )
    n_label, n_pixels = len(posterior.label_set), posterior.instrument.n_pixels
    n_context = network.config.encoder.n_context
    if network.linear_fit is not None:
        n_context += n_label + n_label**2
    pixels, context = (STARS, n_pixels), (STARS, n_context)
    draws = (DRAWS, STARS, n_label)
    graph, state = nnx.split(network)

    def merged() -> Any:
        # A network that is traced must be made within the trace.
        return nnx.merge(graph, state)

    def sample(context: jax.Array, noise: jax.Array) -> tuple[jax.Array, ...]:
        labels, log_prob = merged().transform(noise, context)
        inside = jnp.ones(log_prob.shape, bool) if prior is None else prior.supports(labels)
        return labels, log_prob, inside.astype(jnp.float32)

    return (
        Graph(
            "prepare",
            lambda flux, ivar: prepare(flux, ivar, posterior.instrument),
            {"flux": pixels, "ivar": pixels},
            ("normalised_flux", "normalised_ivar"),
        ),
        Graph(
            "encode",
            lambda flux, ivar: (merged().context(flux, ivar),),
            {"normalised_flux": pixels, "normalised_ivar": pixels},
            ("context",),
        ),
        Graph("sample", sample, {"context": context, "noise": draws}, ("labels", "log_prob", "inside_prior")),
        Graph(
            "log_prob",
            lambda context, labels: (merged().log_prob_given(labels, context),),
            {"context": context, "labels": draws},
            ("log_prob",),
        ),
    )


def emulator_graphs(emulator: Emulator) -> tuple[Graph, ...]:
    """`spectrum`: labels and microturbulence (km/s) to continuum-normalised flux on the velocity grids."""

    def spectrum(labels: jax.Array, vmic: jax.Array) -> tuple[jax.Array]:
        return (jax.vmap(emulator)(labels, vmic),)

    shape = (STARS, len(emulator.label_set))
    return (Graph("spectrum", spectrum, {"labels": shape, "vmic": (STARS,)}, ("flux",)),)
