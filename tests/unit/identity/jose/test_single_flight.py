from __future__ import annotations

import asyncio

import pytest

from gateway.identity.jose.single_flight import SingleFlight


async def test_callers_of_one_key_share_one_call_and_other_keys_do_not() -> None:
    calls: list[str] = []
    flight: SingleFlight[str, str] = SingleFlight()

    async def ask(key: str) -> str:
        calls.append(key)
        await asyncio.sleep(0)
        return key.upper()

    found = await asyncio.gather(*(flight.ask(key, lambda key=key: ask(key)) for key in "aabab"))  # type: ignore[misc]
    assert (found, sorted(calls)) == (["A", "A", "B", "A", "B"], ["a", "b"])
    assert not flight.busy("a")
    await flight.ask("a", lambda: ask("a"))
    assert calls.count("a") == 2


async def test_a_failure_reaches_every_caller_and_is_over() -> None:
    flight: SingleFlight[int, None] = SingleFlight()

    async def fail() -> None:
        await asyncio.sleep(0)
        raise LookupError

    found = await asyncio.gather(*(flight.ask(1, fail) for _ in range(3)), return_exceptions=True)
    assert [type(error) for error in found] == [LookupError] * 3
    assert not flight.busy(1)


async def test_there_is_a_limit_and_an_end() -> None:
    flight: SingleFlight[int, None] = SingleFlight(limit=1)

    async def hang() -> None:
        await asyncio.sleep(60)

    waiting = asyncio.create_task(flight.ask(1, hang))
    await asyncio.sleep(0)
    assert await flight.ask(2, hang) is None
    await flight.close(grace_s=0.01)
    assert await waiting is None


async def test_an_end_waits_for_what_runs() -> None:
    flight: SingleFlight[int, str] = SingleFlight()

    async def answer() -> str:
        await asyncio.sleep(0.01)
        return "answer"

    waiting = asyncio.create_task(flight.ask(1, answer))
    await asyncio.sleep(0)
    await flight.close()
    assert await waiting == "answer"


async def test_a_caller_that_goes_away_leaves_the_call_running() -> None:
    flight: SingleFlight[int, str] = SingleFlight()

    async def answer() -> str:
        await asyncio.sleep(0.01)
        return "answer"

    first, second = (asyncio.create_task(flight.ask(1, answer)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert await second == "answer"
