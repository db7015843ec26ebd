"""A language model as planner, through any endpoint that speaks the OpenAI protocol for chats.

The model is offered the tools as functions; one that has none answers in JSON instead. It never touches
data: it names a tool and arguments, which are checked like anybody's. Where the endpoint is slow, wrong,
refusing or gone, or the model rambles, the star goes on with the rules and its status says so.

Needs the `agent` extra (openai, pydantic).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxspec.agent.hypotheses import CAUSES
from jaxspec.agent.planners import Action, Brief, Observation, Plan, Planner, rules
from jaxspec.agent.tools import TOOLS
from jaxspec.errors import InputError

NUDGES = 2  # replies without a usable tool call that are forgiven in a row
LONGEST = 6000  # letters of an observation that are sent
SAID = {
    "suspicion": {"type": "string", "description": "the hypothesis that you have in mind, in a few words"},
    "reason": {"type": "string", "description": "why this step, in one sentence"},
}


@dataclass(frozen=True)
class Endpoint:
    """Where a language model is found.

    Attributes:
        model: its name.
        base_url: of an OpenAI-compatible endpoint; none: that of the OpenAI client.
        api_key: none: the client's own environment variable, or none for an endpoint that asks for none.
        json_mode: ask for JSON instead of tool calls.
        images: send pictures; for models that take them.
        timeout: seconds that a reply may take.
        retries: of a request that failed.
        temperature: of the model; none: the endpoint's own.
        fallback: finish with the rules when the model fails; else with the best so far.
    """

    model: str
    base_url: str | None = None
    api_key: str | None = None
    json_mode: bool = False
    images: bool = False
    timeout: float = 60.0
    retries: int = 1
    temperature: float | None = 0.0
    fallback: bool = True


def llm(endpoint: Endpoint) -> Planner:
    """The planner of an endpoint.

    Raises: InputError without the package openai.
    """
    try:
        import openai
    except ImportError as error:
        raise InputError(
            "planner llm", "no openai", "the extra agent", 'pip install "jaxspec[agent]"'
        ) from error
    import os

    key = endpoint.api_key or os.environ.get("OPENAI_API_KEY") or "none"
    client = openai.OpenAI(
        base_url=endpoint.base_url, api_key=key, timeout=endpoint.timeout, max_retries=endpoint.retries
    )

    def planner(brief: Brief) -> Plan:
        try:
            failure = yield from _converse(client, endpoint, brief)
        except openai.OpenAIError as error:
            failure = f"the endpoint failed ({type(error).__name__})"
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            failure = f"the endpoint answered nonsense ({type(error).__name__})"
        if failure is None or not endpoint.fallback:
            return failure
        yield from _by_rules(brief, f"{failure}; finished by the rules")
        return None

    return planner


def _by_rules(brief: Brief, status: str) -> Generator[Action, Observation, None]:
    plan = rules(brief)
    action = next(plan)
    while True:
        observation = yield action._replace(status=status)
        try:
            action = plan.send(observation)
        except StopIteration:
            return


def _converse(client: Any, endpoint: Endpoint, brief: Brief) -> Generator[Action, Observation, str | None]:
    """Talk until the model concludes; returns what went wrong, or None."""
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": instructions(brief, endpoint.json_mode)},
        {"role": "user", "content": f"The star is {brief.star!r}. Begin with look_at_spectrum and infer."},
    ]
    extra: dict[str, Any] = {} if endpoint.temperature is None else {"temperature": endpoint.temperature}
    if endpoint.json_mode:
        extra["response_format"] = {"type": "json_object"}
    else:
        extra["tools"] = functions()
    useless, tokens = 0, 0
    while True:
        reply = client.chat.completions.create(model=endpoint.model, messages=messages, **extra)
        message = reply.choices[0].message
        text = message.content or ""
        tokens += _tokens(reply, messages, text)
        asked = _from_json(text) if endpoint.json_mode else _from_calls(message.tool_calls)
        if not asked:
            useless += 1
            if useless > NUDGES:
                return "the model refused" if getattr(message, "refusal", None) else "the model calls no tool"
            messages += [
                {"role": "assistant", "content": text[:LONGEST]},
                {"role": "user", "content": "Call one tool. Call conclude when you are done."},
            ]
            continue
        useless = 0
        if endpoint.json_mode:
            messages.append({"role": "assistant", "content": text[:LONGEST]})
        else:
            messages.append(
                {
                    "role": "assistant",
                    "content": text[:LONGEST],
                    "tool_calls": [
                        {"id": i, "type": "function", "function": {"name": a.tool, "arguments": raw}}
                        for i, a, raw in asked
                    ],
                }
            )
        for identity, action, _ in asked:
            observation = yield action._replace(tokens=tokens)
            tokens = 0
            if action.tool == "conclude" and "error" not in observation:
                return None
            shown = json.dumps(observation)[:LONGEST]
            if endpoint.json_mode:
                messages.append({"role": "user", "content": f"{action.tool}: {shown}"})
            else:
                messages.append({"role": "tool", "tool_call_id": identity, "content": shown})
            picture = observation.get("picture")
            if endpoint.images and picture and brief.folder is not None:
                messages.append(_image(brief.folder / str(picture)))


def instructions(brief: Brief, json_mode: bool) -> str:
    """The system prompt."""
    parts = [
        "You work on the spectrum of one star with tools. Look at the data, form a hypothesis about what is "
        "wrong, test it with compare, mend one thing at a time, and end with conclude. Most stars are "
        "ordinary. A hypothesis is better where its log evidence is higher by 5 or more. Never invent "
        "numbers: use those of the observations.",
        "Causes: " + "; ".join(f"{name} ({text})" for name, text in CAUSES.items()) + ".",
        "Remedies: of a wrong velocity set_velocity to the fitted one and infer again; of a wrong prior "
        "set_prior training and infer again; a hot star has no labels (labels_from none); of the others take "
        "the labels from the fitted hypothesis.",
        brief.knowledge.page(),
    ]
    if json_mode:
        tools = [
            {"tool": t.name, "does": t.text, "arguments": t.schema().get("properties", {})}
            for t in TOOLS.values()
        ]
        parts.append(
            'Answer with one JSON object: {"tool": NAME, "arguments": {...}, "suspicion": TEXT, '
            f'"reason": TEXT}}. Tools: {json.dumps(tools)}'
        )
    return "\n\n".join(parts)


def functions() -> list[dict[str, Any]]:
    """The tools as the protocol's functions, each with a place to say what is suspected and why."""
    out = []
    for tool in TOOLS.values():
        schema = tool.schema()
        schema["properties"] = {**schema.get("properties", {}), **SAID}
        function = {"name": tool.name, "description": tool.text, "parameters": schema}
        out.append({"type": "function", "function": function})
    return out


def _from_calls(calls: Any) -> list[tuple[str, Action, str]]:
    asked = []
    for called in calls or ():
        raw = called.function.arguments or "{}"
        asked.append((called.id, _action(called.function.name, raw), raw))
    return asked


def _from_json(text: str) -> list[tuple[str, Action, str]]:
    start, end = text.find("{"), text.rfind("}")
    try:
        value = json.loads(text[start : end + 1])
        tool = value["tool"]
    except (ValueError, KeyError, TypeError):
        return []
    arguments = {**(value.get("arguments") or {})} if isinstance(value.get("arguments") or {}, dict) else {}
    said = {name: value[name] for name in SAID if name in value}
    return [("", _action(str(tool), json.dumps({**arguments, **said})), text)]


def _action(tool: str, raw: str) -> Action:
    """The action that was asked for; arguments that are no object are answered as any wrong ones."""
    try:
        arguments = json.loads(raw)
    except ValueError:
        arguments = {"unreadable": raw[:200]}
    if not isinstance(arguments, dict):
        arguments = {"unreadable": str(arguments)[:200]}
    said = {name: str(arguments.pop(name, ""))[:500] for name in SAID}
    return Action(tool, arguments, said["suspicion"], said["reason"])


def _tokens(reply: Any, messages: list[dict[str, Any]], text: str) -> int:
    """As the endpoint counts them; where it does not, a quarter of the letters."""
    used = getattr(getattr(reply, "usage", None), "total_tokens", None)
    return int(used) if used else (len(json.dumps(messages)) + len(text)) // 4


def _image(path: Path) -> dict[str, Any]:
    data = base64.b64encode(path.read_bytes()).decode()
    url = {"url": f"data:image/png;base64,{data}"}
    return {"role": "user", "content": [{"type": "image_url", "image_url": url}]}
