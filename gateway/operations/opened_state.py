"""The state of a configuration, opened for one operation."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.config import Config
from gateway.operations.errors import ActionFailed
from gateway.wiring import State, open_state


@asynccontextmanager
async def opened(config: Config) -> AsyncIterator[State]:
    """The state, closed after the operation. Raises ActionFailed for a folder that cannot be used, and StoreDown."""
    try:
        state = await open_state(config)
    except (OSError, ValueError) as error:
        raise ActionFailed(f"The state in {config.state} cannot be used: {error}.") from error
    try:
        yield state
    finally:
        await state.store.close()
