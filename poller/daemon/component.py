"""A part that comes and goes on its own: entered, maybe with a pump that runs as a task, and left."""

import asyncio
from collections.abc import Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, Generic, Self, TypeVar

Part = TypeVar("Part")
Pump = TypeVar("Pump")


class Component(Generic[Part]):
    """`part` is what was entered, or the pump that works with it."""

    def __init__(self, part: Part, stack: AsyncExitStack) -> None:
        self.part = part
        self.task: asyncio.Task[None] | None = None
        self._stack = stack

    @classmethod
    async def enter(cls, port: AbstractAsyncContextManager[Part]) -> Self:
        """Enter a port."""
        stack = AsyncExitStack()
        return cls(await stack.enter_async_context(port), stack)

    def with_pump(self, pump: Pump) -> "Component[Pump]":
        """The same, to be left with its pump."""
        return Component(pump, self._stack)

    def begin(self, group: asyncio.TaskGroup, pumping: Coroutine[Any, Any, None]) -> None:
        """Let the pump run."""
        self.task = group.create_task(pumping)

    async def close(self) -> None:
        """Leave the port; its pump has ended."""
        await self._stack.aclose()
