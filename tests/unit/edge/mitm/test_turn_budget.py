"""Turns: large input goes in slices, blocked input waits, clients share the worker evenly."""

import asyncio

from mitmproxy.proxy import events

from gateway.edge.mitm.turn_budget import SLICE_BYTES, ConnectionTurns, Turn, TurnScheduler


class Ids:
    """Connections compare by identity."""


class Layers:
    """Notes what it is fed, slowly."""

    def __init__(self, scheduler, key="c"):
        self.fed = []
        self.turns = ConnectionTurns(scheduler, key, self.feed)
        self.work = lambda event: None

    def feed(self, event):
        self.fed.append(event)
        self.work(event)

    def data(self):
        return b"".join(event.data for event in self.fed if isinstance(event, events.DataReceived))


async def settle(condition):
    for _ in range(10_000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it did not happen")


def test_input_comes_whole_and_in_order_in_slices():
    async def run():
        layers, connection = Layers(TurnScheduler()), Ids()
        data = bytes(range(256)) * 1024
        layers.turns.receive(connection, data)
        layers.turns.receive(connection, b"more")
        await settle(lambda: len(layers.data()) == len(data) + 4)
        assert layers.data() == data + b"more"
        assert max(len(event.data) for event in layers.fed) <= SLICE_BYTES
        assert not layers.turns.is_busy(connection)

    asyncio.run(run())


def test_blocked_input_waits_and_goes_on():
    async def run():
        layers, connection = Layers(TurnScheduler()), Ids()
        layers.turns.block(frozenset({connection}))
        layers.turns.receive(connection, bytes(SLICE_BYTES * 3))
        for _ in range(20):
            await asyncio.sleep(0)
        assert layers.fed == []
        assert layers.turns.is_busy(connection)
        layers.turns.block(frozenset())
        await settle(lambda: len(layers.data()) == SLICE_BYTES * 3)

    asyncio.run(run())


def test_an_end_comes_after_the_input_before_it():
    async def run():
        layers, connection, ends = Layers(TurnScheduler()), Ids(), []
        assert not layers.turns.at_end(connection, lambda: ends.append(1))
        layers.turns.later(connection)
        assert layers.turns.at_end(connection, lambda: ends.append(len(layers.fed)))
        await settle(lambda: ends)
        assert ends == [1]
        assert isinstance(layers.fed[0], Turn)

    asyncio.run(run())


def test_a_client_with_many_connections_gets_no_more_than_one_with_few():
    async def run():
        scheduler, order = TurnScheduler(), []

        class Endless:
            def __init__(self, key):
                self.client_key = key
                self.left = 50

            def take_turn(self):
                order.append(self.client_key)
                self.left -= 1
                return self.left > 0

        for _ in range(20):
            scheduler.enqueue(Endless("many"))
        scheduler.enqueue(Endless("few"))
        await settle(lambda: len(order) == 21 * 50)
        assert order[:100].count("few") >= 49

    asyncio.run(run())


def test_a_run_ends_after_some_milliseconds_and_lets_the_loop_go_on():
    async def run():
        loop, scheduler = asyncio.get_running_loop(), TurnScheduler()

        class Slow:
            client_key = "slow"
            left = 50

            def take_turn(self):
                until = loop.time() + 0.003
                while loop.time() < until:
                    pass
                self.left -= 1
                return self.left > 0

        slow, turns = Slow(), 0
        scheduler.enqueue(slow)
        while slow.left:
            await asyncio.sleep(0)
            turns += 1
        assert turns >= 20

    asyncio.run(run())


def test_what_is_closed_is_fed_no_more():
    async def run():
        layers, connection = Layers(TurnScheduler()), Ids()
        layers.turns.later(connection)
        layers.turns.close()
        for _ in range(5):
            await asyncio.sleep(0)
        assert layers.fed == []

    asyncio.run(run())
