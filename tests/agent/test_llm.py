"""A scripted endpoint on loopback speaks the real protocol, well and badly: the star always ends with labels,
a cause and a status that says what happened."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

pytest.importorskip("openai")

from jaxspec.agent.hypotheses import ORDINARY
from jaxspec.agent.llm import Endpoint, functions, instructions, llm
from jaxspec.agent.loop import DONE, Budget, work
from jaxspec.agent.planners import Brief, Knowledge
from jaxspec.agent.tools import TOOLS


class Endless(list):
    """Replies of which the last is repeated."""


def called(name, arguments, content=None):
    function = {"name": name, "arguments": arguments if isinstance(arguments, str) else json.dumps(arguments)}
    calls = [{"id": f"call_{name}", "type": "function", "function": function}]
    return {"role": "assistant", "content": content, "tool_calls": calls}


def said(text, **more):
    return {"role": "assistant", "content": text, **more}


@pytest.fixture
def endpoint():
    """A function that starts a server of given replies and returns its Endpoint and the requests it got."""
    servers = []

    def start(replies, delay=0.0, status=200, raw=None, **options):
        requests = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                length = int(self.headers["Content-Length"])
                requests.append(json.loads(self.rfile.read(length)))
                time.sleep(delay)
                message = replies[min(len(requests), len(replies)) - 1] if replies else said("")
                body = raw or json.dumps(
                    {
                        "id": "x", "object": "chat.completion", "created": 0, "model": "scripted",
                        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                        "usage": {"prompt_tokens": 90, "completion_tokens": 10, "total_tokens": 100},
                    }
                )  # fmt: skip
                try:
                    self.send_response(status)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(body.encode())))
                    self.end_headers()
                    self.wfile.write(body.encode())
                except (BrokenPipeError, ConnectionResetError):
                    pass  # the client has gone

            def log_message(self, *args):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        servers.append(server)
        url = f"http://127.0.0.1:{server.server_port}/v1"
        options = {"retries": 0, "timeout": 5.0} | options
        return Endpoint("scripted", url, api_key="none", **options), requests

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def bench(make_bench, observed, monkeypatch):
    return make_bench(*observed())


SESSION = [
    called("look_at_spectrum", {"reason": "know the data"}),
    called("infer", {}),
    called(
        "compare", {"hypotheses": [ORDINARY, "scattered light"], "suspicion": "light", "reason": "a test"}
    ),
    called("conclude", {"cause": ORDINARY, "labels_from": ORDINARY, "reason": "nothing else is better"}),
]


def test_a_session_by_tool_calls(endpoint, bench):
    where, requests = endpoint(SESSION)
    worked = work(bench, llm(where), Knowledge().with_star("binary", ("two velocities",)))
    assert worked.status == DONE and worked.conclusion.cause == ORDINARY
    assert [s.action.tool for s in worked.steps] == ["look_at_spectrum", "infer", "compare", "conclude"]
    assert worked.steps[2].action.hypothesis == "light" and worked.steps[2].action.reason == "a test"
    assert "reason" not in worked.steps[0].action.arguments
    assert sum(s.action.tokens for s in worked.steps) == 400
    first, last = requests[0], requests[-1]
    assert {t["function"]["name"] for t in first["tools"]} == set(TOOLS)
    assert "two velocities: binary 1/1" in first["messages"][0]["content"]
    answers = [m for m in last["messages"] if m["role"] == "tool"]
    assert [a["tool_call_id"] for a in answers] == ["call_look_at_spectrum", "call_infer", "call_compare"]
    assert json.loads(answers[2]["content"])["best"] == ORDINARY


def test_a_session_in_json(endpoint, bench):
    replies = []
    for message in SESSION:
        function = message["tool_calls"][0]["function"]
        replies.append(
            said(json.dumps({"tool": function["name"], "arguments": json.loads(function["arguments"])}))
        )
    replies[1] = said(f"Let me see. {replies[1]['content']}")
    where, requests = endpoint(replies, json_mode=True)
    worked = work(bench, llm(where))
    assert worked.status == DONE and worked.conclusion.cause == ORDINARY
    assert requests[0]["response_format"] == {"type": "json_object"} and "tools" not in requests[0]
    assert all(m["role"] != "tool" for m in requests[-1]["messages"])


def test_unknown_tools_and_arguments_are_answered_and_end(endpoint, bench):
    blunders = [
        called("teleport", {}),
        called("compare", "{not json"),
        called("compare", {"hypotheses": ["x"]}),
    ]
    where, requests = endpoint([*blunders, *SESSION])
    worked = work(bench, llm(where))
    assert worked.status == DONE
    errors = [json.loads(m["content"]) for m in requests[-1]["messages"] if m["role"] == "tool"][:3]
    assert all("allowed" in e for e in errors)
    where, _ = endpoint(blunders[:1])
    worked = work(bench, llm(where), budget=Budget(errors=3, repeats=99))
    assert worked.status == "budget of errors spent" and np.isfinite(worked.posterior.median).all()


@pytest.mark.parametrize(
    ("how", "status"),
    [
        ({"replies": [said("I wonder about the nature of light.")]}, "the model calls no tool"),
        ({"replies": [said("", refusal="I cannot help with stars.")]}, "the model refused"),
        ({"replies": SESSION, "status": 500}, "the endpoint failed (InternalServerError)"),
        ({"replies": SESSION, "status": 401}, "the endpoint failed (AuthenticationError)"),
        ({"replies": SESSION, "delay": 0.6, "timeout": 0.2}, "the endpoint failed (APITimeoutError)"),
        ({"replies": SESSION, "raw": "<html>busy</html>"}, "the endpoint"),
        ({"replies": SESSION, "raw": '{"choices": []}'}, "the endpoint answered nonsense"),
    ],
    ids=["rambles", "refuses", "fails", "locked", "slow", "no JSON", "no choices"],
)
def test_what_fails_is_finished_by_the_rules_and_said(endpoint, bench, how, status):
    where, _ = endpoint(**how)
    worked = work(bench, llm(where))
    assert worked.status.startswith(status) and worked.status.endswith("; finished by the rules")
    assert worked.conclusion.cause == ORDINARY and worked.steps[-1].action.tool == "conclude"


def test_without_fallback_the_star_ends_where_it_was(endpoint, bench):
    where, _ = endpoint(SESSION[:1] + [said("Hm.")], fallback=False)
    worked = work(bench, llm(where))
    assert worked.status == "the model calls no tool" and np.isfinite(worked.posterior.median).all()
    gone = Endpoint(
        "scripted", "http://127.0.0.1:9/v1", api_key="none", retries=0, timeout=2.0, fallback=False
    )
    assert work(bench, llm(gone)).status == "the endpoint failed (APIConnectionError)"


def test_tokens_are_budgeted(endpoint, bench):
    where, _ = endpoint(SESSION)
    assert work(bench, llm(where), budget=Budget(tokens=250)).status == "budget of tokens spent"


def test_what_models_are_told_names_every_tool_and_cause():
    text = instructions(Brief("x", Knowledge()), True)
    assert all(name in text for name in TOOLS)
    assert {f["function"]["name"] for f in functions()} == set(TOOLS)
    assert all({"reason", "suspicion"} <= set(f["function"]["parameters"]["properties"]) for f in functions())
