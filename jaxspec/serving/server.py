"""The engine over HTTP: the Open Inference Protocol v2, metrics, and an end that loses no request."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import json
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import jaxspec
from jaxspec.errors import InputError
from jaxspec.serving import protocol
from jaxspec.serving.batching import Batcher, Full
from jaxspec.serving.engine import INPUTS, ON_DEMAND, OPTIONAL, OUTPUTS, PARAMETERS, Engine

log = logging.getLogger(__name__)

VERSION = "1"
PLATFORM = "jaxspec"
RETRY_AFTER = 1  # seconds, where the queue is full


@dataclass(frozen=True)
class ServerConfig:
    """How the server listens.

    Attributes:
        name: of the model in addresses.
        host: address to listen at; others than this machine's own need a token.
        port: to listen at; 0 takes a free one.
        token: clients send it as `Authorization: Bearer TOKEN`; none: everybody who reaches the port is
            answered.
        batch: most spectra that are worked on at once.
        deadline: seconds that a request waits for others to be worked on with it.
        queue: spectra that may wait; beyond it the answer is 503.
        reading: requests that may be read and worked on at the same time; beyond it the answer is 503.
        timeout: seconds after which a request is given up with 504.
        megabytes: largest body of a request.
    """

    name: str = "jaxspec"
    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = None
    batch: int = 64
    deadline: float = 0.01
    queue: int = 256
    reading: int = 64
    timeout: float = 120.0
    megabytes: float = 64.0

    def __post_init__(self):
        if not self.token and not _is_loopback(self.host):
            raise InputError(
                "host",
                f"{self.host} without a token",
                "127.0.0.1, or a token",
                "write token=..., and put a proxy with TLS in front",
            )
        for name in ("batch", "queue", "reading", "timeout", "megabytes"):
            if not getattr(self, name) > 0:
                raise InputError(name, str(getattr(self, name)), "a positive number", "mend the settings")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def make_app(engine: Engine, config: ServerConfig) -> Any:
    """The ASGI application.

    Raises: InputError without the extra `serve`.
    """
    starlette, prometheus = _packages()
    registry = prometheus.CollectorRegistry()
    answered = prometheus.Counter("jaxspec_requests", "Requests answered", ["status"], registry=registry)
    seconds = prometheus.Histogram("jaxspec_request_seconds", "Time to the answer", registry=registry)
    spectra = prometheus.Counter("jaxspec_spectra", "Spectra inferred", registry=registry)
    sizes = prometheus.Histogram(
        "jaxspec_batch_spectra",
        "Spectra worked on at once",
        registry=registry,
        buckets=(1, 2, 4, 8, 16, 32, 64),
    )

    def work(jobs: list[Any]) -> Any:
        sizes.observe(sum(job.spectra.n_stars for job in jobs))
        return engine.work(jobs)

    batcher = Batcher(work, config.batch, config.deadline, config.queue)
    prometheus.Gauge("jaxspec_waiting_spectra", "Spectra that wait", registry=registry).set_function(
        lambda: batcher.waiting
    )
    inside = 0

    ready = False

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        nonlocal ready
        ready = True
        yield
        ready = False
        # By now every request that was accepted has been answered.
        await asyncio.to_thread(batcher.close)

    def refuse(status: int, message: str, **headers: str) -> Any:
        headers = {k.replace("_", "-"): v for k, v in headers.items()}
        return starlette.JSONResponse({"error": message}, status, headers)

    async def count(request: Any, call_next: Any) -> Any:
        begun = time.perf_counter()
        if config.token and not request.url.path.startswith("/v2/health/"):
            given = request.headers.get("authorization", "")
            if not hmac.compare_digest(given.encode(), f"Bearer {config.token}".encode()):
                answered.labels("401").inc()
                return refuse(401, "header Authorization: found no valid token", www_authenticate="Bearer")
        response = await call_next(request)
        if request.url.path.endswith("/infer"):
            answered.labels(str(response.status_code)).inc()
            seconds.observe(time.perf_counter() - begun)
        return response

    def unknown(request: Any) -> Any:
        name, version = request.path_params["name"], request.path_params.get("version", VERSION)
        if (name, version) == (config.name, VERSION):
            return None
        return refuse(404, f"model {name} version {version}: found none; expected {config.name} {VERSION}")

    async def server(request: Any) -> Any:
        about = {"name": "jaxspec", "version": jaxspec.__version__, "extensions": ["binary_tensor_data"]}
        return starlette.JSONResponse(about)

    async def live(request: Any) -> Any:
        return starlette.JSONResponse({"live": True})

    async def is_ready(request: Any) -> Any:
        return starlette.JSONResponse({"ready": True}) if ready else refuse(503, "the server is not ready")

    async def metrics(request: Any) -> Any:
        content = prometheus.generate_latest(registry)
        return starlette.Response(content, media_type=prometheus.CONTENT_TYPE_LATEST)

    async def metadata(request: Any) -> Any:
        return unknown(request) or starlette.JSONResponse(describe(engine, config))

    async def model_ready(request: Any) -> Any:
        return unknown(request) or starlette.JSONResponse({"name": config.name, "ready": ready})

    async def infer(request: Any) -> Any:
        nonlocal inside
        if (other := unknown(request)) is not None:
            return other
        if request.headers.get("content-encoding", "identity") != "identity":
            return refuse(415, "header Content-Encoding: found a compressed body; expected a plain one")
        if inside >= config.reading:
            return refuse(503, f"{inside} requests are worked on: try again", retry_after=str(RETRY_AFTER))
        inside += 1
        try:
            return await asyncio.wait_for(answer(request), config.timeout)
        except InputError as error:
            return refuse(400, str(error))
        except TimeoutError:
            return refuse(504, f"no answer within {config.timeout:g} s")
        except Full:
            return refuse(503, "the queue is full: try again", retry_after=str(RETRY_AFTER))
        finally:
            inside -= 1

    async def answer(request: Any) -> Any:
        limit, body = int(config.megabytes * 2**20), bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                return refuse(413, f"request: found more than {config.megabytes:g} MB; send fewer spectra")
        header = request.headers.get(protocol.HEADER_LENGTH)
        asked = await asyncio.to_thread(protocol.read_request, bytes(body), header)
        job = await asyncio.to_thread(engine.read, asked)
        try:
            outputs, said = await asyncio.wrap_future(batcher.submit(job, job.spectra.n_stars))
        except (InputError, Full):
            raise
        except Exception:
            log.exception("a request of %d spectra failed", job.spectra.n_stars)
            return refuse(500, "the labels could not be worked out; the server's log says why")
        spectra.inc(job.spectra.n_stars)
        content, headers = protocol.write_response(config.name, VERSION, asked, outputs, said)
        return starlette.Response(content, headers=headers)

    model = ("/v2/models/{name}", "/v2/models/{name}/versions/{version}")
    routes = [
        starlette.Route("/v2", server),
        starlette.Route("/v2/health/live", live),
        starlette.Route("/v2/health/ready", is_ready),
        starlette.Route("/metrics", metrics),
        *(starlette.Route(path, metadata) for path in model),
        *(starlette.Route(f"{path}/ready", model_ready) for path in model),
        *(starlette.Route(f"{path}/infer", infer, methods=["POST"]) for path in model),
    ]
    middleware = [starlette.Middleware(starlette.BaseHTTPMiddleware, dispatch=count)]
    return starlette.Starlette(routes=routes, middleware=middleware, lifespan=lifespan)


def describe(engine: Engine, config: ServerConfig) -> dict[str, Any]:
    """The metadata of the model; -1 is any number."""
    n_label, n_draws = len(engine.posterior.label_set), engine.config.n_draws
    sizes = {"l": n_label, "d": n_draws, "n": -1, "p": -1}

    def tensors(entries: dict[str, Any]) -> list[dict[str, Any]]:
        return [
            {"name": name, "datatype": kind, "shape": [n if isinstance(n, int) else sizes[n] for n in shape]}
            for name, (kind, shape) in entries.items()
        ]

    labels = engine.posterior.label_set
    return {
        "name": config.name,
        "versions": [VERSION],
        "platform": PLATFORM,
        "inputs": tensors({**INPUTS, **OPTIONAL}),
        "outputs": tensors({**OUTPUTS, **ON_DEMAND}),
        "parameters": {
            "labels": json.dumps(
                [{"name": x.name, "unit": x.unit, "low": x.low, "high": x.high} for x in labels]
            ),
            "instrument": engine.posterior.instrument.name,
            "optional_inputs": ",".join(OPTIONAL),
            "request_parameters": ",".join(PARAMETERS),
            "refine": engine.config.refine,
            "jaxspec": jaxspec.__version__,
        },
    }


def serve(engine: Engine, config: ServerConfig) -> None:
    """Answer requests until SIGTERM or SIGINT; those that were accepted are answered before the end.

    Raises: InputError without the extra `serve`.
    """
    app = make_app(engine, config)
    import uvicorn

    engine.warm_up()
    options: dict[str, Any] = dict(host=config.host, port=config.port, log_level="warning", access_log=False)
    server = uvicorn.Server(uvicorn.Config(app, timeout_graceful_shutdown=int(config.timeout) + 1, **options))
    log.info("listening at http://%s:%d/v2/models/%s", config.host, config.port, config.name)
    server.run()


def _packages() -> tuple[Any, Any]:
    try:
        import prometheus_client
        import uvicorn  # noqa: F401
        from starlette.applications import Starlette
        from starlette.middleware import Middleware
        from starlette.middleware.base import BaseHTTPMiddleware
        from starlette.responses import JSONResponse, Response
        from starlette.routing import Route
    except ImportError as error:
        raise InputError(
            "serve",
            f"no package {error.name}",
            "starlette, uvicorn and prometheus-client",
            'install them with pip install "jaxspec[serve]"',
        ) from error
    parts = (Starlette, Middleware, BaseHTTPMiddleware, JSONResponse, Response, Route)
    return SimpleNamespace(**{part.__name__: part for part in parts}), prometheus_client
