"""`check --connect`: the destinations of sinks."""

import asyncio
from collections.abc import Sequence

import typer

from poller.core.errors import SinkError
from poller.core.ports import ChecksDestination
from poller.pipeline.courier import Courier
from poller.settings import Settings


async def check_destinations(settings: Settings, couriers: Sequence[Courier]) -> bool:
    """Print what is wrong at each destination that can be examined; true if nothing is."""
    good = True
    for courier in couriers:
        sink = courier.sink
        if not isinstance(sink, ChecksDestination):
            continue
        found = await _findings(sink, settings.sinks[courier.name].timeout)
        for text in found or ("the destination is there, and takes events",):
            typer.echo(f"sink {courier.name}: {text}", err=bool(found))
        good = good and not found
    return good


async def _findings(sink: ChecksDestination, timeout: float) -> Sequence[str]:
    try:
        async with asyncio.timeout(timeout):
            return await sink.check()
    except TimeoutError:
        return [f"the destination did not answer within {timeout:g} s"]
    except SinkError as error:
        return [error.reason]
    except Exception as error:  # of a plug-in's library: its text may hold a secret
        return [f"the destination cannot be examined ({type(error).__name__})"]
