"""The control port: look into the sandbox, and make things happen in it, by HTTP and JSON."""

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol

from aiohttp import web

from poller.sandbox.callbacks.callbacks import Callbacks
from poller.sandbox.channels import Channels
from poller.sandbox.clock import Clock
from poller.sandbox.cos.store import Pictures
from poller.sandbox.faults import Faults
from poller.sandbox.live import Live
from poller.sandbox.options import BadOption, check_delay, check_interval, check_offset, check_pace, check_url
from poller.sandbox.pushers import Pushers
from poller.sandbox.query.queues import Platform
from poller.sandbox.query.synthetic import Load
from poller.sandbox.screenshots import Screenshots


class Controlled(Protocol):
    """The parts of a sandbox that its control port looks at and changes."""

    platform: Platform
    channels: Channels
    callbacks: Callbacks
    clock: Clock
    faults: dict[str, Faults]
    live: Live
    pictures: Pictures
    pushers: Pushers
    screenshots: Screenshots

    def enqueue(self, load: Load) -> int:
        """Enqueue made-up messages; returns the number of the last."""
        ...

    def state(self) -> dict[str, object]:
        """All counts."""
        ...


Verb = Callable[[Controlled, dict[str, Any]], Awaitable[dict[str, object]]]


class ControlPort:
    """Answers JSON with JSON; a request that makes no sense gets 400 and says why."""

    def __init__(self, sandbox: Controlled) -> None:
        self._sandbox = sandbox

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """One HTTP request of any kind."""
        verb = VERBS.get((request.method, request.path))
        if verb is None:
            known = [" ".join(one) for one in VERBS]
            return web.json_response({"error": "not found", "known": known}, status=404)
        try:
            text = await request.read()
            body = json.loads(text) if text else {}
            if not isinstance(body, dict):
                raise BadOption("the body is not a JSON object")
            return web.json_response(await verb(self._sandbox, body))
        except (KeyError, TypeError, ValueError) as error:
            return web.json_response({"error": f"{type(error).__name__}: {error}"}, status=400)


async def _state(sandbox: Controlled, body: dict[str, Any]) -> dict[str, object]:
    return sandbox.state()


async def _enqueue(sandbox: Controlled, body: dict[str, Any]) -> dict[str, object]:
    """A load of made-up messages, or `poison` kinds, or `raw` texts."""
    queue = sandbox.platform.queue(body.get("customer"))
    if "poison" in body:
        queue.enqueue_poison(_texts(body, "poison"))
    elif "raw" in body:
        for text in _texts(body, "raw"):
            queue.enqueue_raw(text.encode("utf-8", "surrogatepass"))
    else:
        sandbox.enqueue(Load(**body))
    return {"last_n": queue.last_n, "depth": queue.depth}


async def _queue(sandbox: Controlled, body: dict[str, Any]) -> dict[str, object]:
    """`limit`: how many messages the customer's queue holds from now on."""
    queue, limit = sandbox.platform.queue(body.get("customer")), body["limit"]
    if type(limit) is not int or limit < 1:
        raise BadOption(f"limit: {limit!r} is no number above 0")
    queue.set_limit(limit)
    sandbox.platform.wakeup.ring()
    return {"limit": queue.limit, "depth": queue.depth, "dropped": queue.counts.dropped}


async def _faults(sandbox: Controlled, body: dict[str, Any]) -> dict[str, object]:
    """`target`; `clear`; `rates` replace the probabilities; `next` orders one-shot faults; `seed`."""
    target = body.get("target", "api")
    faults: Faults | None = sandbox.faults.get(target)
    if faults is None:
        raise BadOption(f"target: {target!r} is none of {', '.join(sandbox.faults)}")
    if body.get("clear"):
        faults.clear()
    if "seed" in body:
        faults.seed(body["seed"])
    if "rates" in body:
        faults.set_rates(body["rates"])
    for order in body.get("next", []):
        params = {name: _param(value) for name, value in order.items() if name != "fault"}
        faults.order(order["fault"], **params)
    return {"ordered": faults.ordered, "rates": faults.rates, "fired": dict(faults.fired)}


async def _streams(sandbox: Controlled, body: dict[str, Any]) -> dict[str, object]:
    """What becomes of the streams named: the sandbox's own are started and ended, anybody's are dropped.

    `start`, `stop` (in an orderly way) and `unplug` (without a word) are the sandbox's own pushers; `kick` drops a
    pusher's connection; `disable` kicks and refuses from then on, until `enable`. `video` is a file for those started,
    `customer` the app id of all.
    """
    customer = sandbox.platform.queue(body.get("customer")).customer
    for stream_id in _texts(body, "stop"):
        await sandbox.pushers.stop(stream_id, customer)
    for stream_id in _texts(body, "unplug"):
        sandbox.pushers.unplug(stream_id, customer)
    for verb in ("disable", "enable"):
        for stream_id in _texts(body, verb):
            sandbox.channels.disable(customer.app_id, stream_id, disabled=verb == "disable")
    for stream_id in (*_texts(body, "kick"), *_texts(body, "disable")):
        sandbox.live.kick(customer.app_id, stream_id)
    file = Path(body["video"]) if "video" in body else None
    for stream_id in _texts(body, "start"):
        await sandbox.pushers.start(stream_id, customer, file=file)
    return {"streams": [push.state() for push in sandbox.live.pushes]}


def _texts(body: dict[str, Any], name: str) -> list[str]:
    """The texts that a key lists, none without it. Raises BadOption if they are no list: a text is not its letters."""
    texts = body.get(name, [])
    if not isinstance(texts, list):
        raise BadOption(f"{name}: {texts!r} is no list")
    return texts


async def _clock(sandbox: Controlled, body: dict[str, Any]) -> dict[str, object]:
    sandbox.clock.offset = check_offset(body["offset"])
    return {"offset": sandbox.clock.offset}


async def _answers(sandbox: Controlled, body: dict[str, Any]) -> dict[str, object]:
    """Changes the named fields of the answer form."""
    sandbox.platform.set_form(replace(sandbox.platform.form, **body))
    return asdict(sandbox.platform.form)


async def _cos(sandbox: Controlled, body: dict[str, Any]) -> dict[str, object]:
    sandbox.pictures.delay = check_delay(body["upload_delay"])
    return {"upload_delay": list(sandbox.pictures.delay)}


async def _screenshots(sandbox: Controlled, body: dict[str, Any]) -> dict[str, object]:
    """`interval`: seconds between two pictures of a stream from now on."""
    sandbox.screenshots.interval = check_interval(body["interval"])
    return {"interval": sandbox.screenshots.interval}


async def _callbacks(sandbox: Controlled, body: dict[str, Any]) -> dict[str, object]:
    """`url`: where the customer's go from now on; `send`: any JSON object, as one of them; `pace`: of all repeats."""
    app_id = sandbox.platform.queue(body.get("customer")).customer.app_id
    line = sandbox.callbacks.line(app_id)
    if "pace" in body:
        sandbox.callbacks.policy.pace = check_pace(body["pace"])
    if "url" in body:
        line.url = check_url(body["url"], "url")
    if "send" in body:
        if not isinstance(body["send"], dict):
            raise BadOption("send: is no JSON object")
        if line.url is None:
            raise BadOption("customer: it has no callback_url")
        sandbox.callbacks.send(app_id, body["send"])
    return {**line.state()}


def _param(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


VERBS: Mapping[tuple[str, str], Verb] = {
    ("GET", "/state"): _state,
    ("POST", "/enqueue"): _enqueue,
    ("POST", "/queue"): _queue,
    ("POST", "/faults"): _faults,
    ("POST", "/streams"): _streams,
    ("POST", "/clock"): _clock,
    ("POST", "/answers"): _answers,
    ("POST", "/cos"): _cos,
    ("POST", "/screenshots"): _screenshots,
    ("POST", "/callbacks"): _callbacks,
}
