"""The ledger of bytes held: who is held back, who ends, and who never pays for others."""

from __future__ import annotations

import pytest

from gateway.edge.mitm.memory_ledger import LOW_BYTES, MemoryLedger, MemoryLimits, Usage

MIB = 1 << 20


class Connection:
    def __init__(self, client_key: str) -> None:
        self.client_key = client_key
        self.ended = 0

    def end_for_memory(self) -> None:
        self.ended += 1


class Book:
    def __init__(self) -> None:
        self.sum = 0
        self.limits = MemoryLimits(connection=4 * MIB, client=8 * MIB, worker=16 * MIB)
        self.ledger = MemoryLedger(lambda: self.limits, self.changed)

    def changed(self, change: int) -> None:
        self.sum += change

    def hold(self, connection: Connection, mib: float, overhead: int = 0) -> None:
        self.ledger.note(connection, Usage(int(mib * MIB), 0, overhead))


@pytest.fixture
def book() -> Book:
    return Book()


def test_a_connection_over_its_limit_ends_and_is_counted_no_more(book):
    greedy, other = Connection("a"), Connection("a")
    book.hold(other, 1)
    book.hold(greedy, 4.1)
    assert (greedy.ended, other.ended) == (1, 0)
    assert book.sum == book.ledger.content == MIB


def test_the_largest_connection_of_a_client_over_its_limit_ends(book):
    many = [Connection("a") for _ in range(4)]
    for number, connection in enumerate(many):
        book.hold(connection, 1.8 + number / 10)
    assert [connection.ended for connection in many] == [0, 0, 0, 0]
    book.hold(many[0], 2.5)
    assert [connection.ended for connection in many] == [1, 0, 0, 0]


def test_the_largest_client_pays_when_the_worker_is_full(book):
    small = Connection("small")
    book.hold(small, 1)
    large = [Connection("large") for _ in range(4)]
    for connection in large:
        book.hold(connection, 1.9)
    others = [Connection(f"other{number}") for number in range(2)]
    for connection in others:
        book.hold(connection, 3.9)
    assert sum(connection.ended for connection in large) == 1
    assert small.ended == others[0].ended == others[1].ended == 0


def test_open_requests_count_for_their_client_and_not_for_the_worker(book):
    for number in range(10):
        book.hold(Connection(f"c{number}"), 0, overhead=3 * MIB)
    assert book.ledger.content == 0
    greedy = [Connection("a") for _ in range(3)]
    for connection in greedy:
        book.hold(connection, 0, overhead=3 * MIB)
    assert sum(connection.ended for connection in greedy) == 1


def test_over_half_of_its_limit_a_client_is_held_back_but_for_its_largest_connection(book):
    first, second, idle = Connection("a"), Connection("a"), Connection("a")
    book.hold(first, 2.5)
    book.hold(second, 2)
    book.hold(idle, LOW_BYTES / MIB)
    assert [book.ledger.is_tight(item) for item in (first, second, idle)] == [False, True, False]
    book.ledger.forget(first)
    assert not book.ledger.is_tight(second)


def test_over_half_of_the_worker_only_clients_over_their_share_are_held_back(book):
    pairs = [(Connection(f"c{number}"), Connection(f"c{number}")) for number in range(3)]
    for one, two in pairs:
        book.hold(one, 1.8)
        book.hold(two, 1.7)
    bystander, sibling = Connection("staff"), Connection("staff")
    book.hold(bystander, 0.5)
    book.hold(sibling, 0.6)
    assert all(book.ledger.is_tight(two) for _, two in pairs)
    assert not any(book.ledger.is_tight(item) for item in (bystander, sibling))


def test_bytes_fit_for_somebody_small_because_somebody_large_ends(book):
    large = [Connection(f"c{number}") for number in range(4)]
    for connection in large:
        book.hold(connection, 2.9)
    small = Connection("small")
    assert book.ledger.fits(small, MIB)
    assert sum(connection.ended for connection in large) == 1
    book.hold(small, 1)
    assert book.ledger.content <= book.limits.worker


def test_bytes_that_would_take_a_client_over_its_limit_do_not_fit_and_nobody_ends(book):
    first, second = Connection("a"), Connection("a")
    book.hold(first, 3)
    book.hold(second, 2.5)
    assert not book.ledger.fits(second, MIB)
    assert not book.ledger.fits(first, 1)
    assert book.ledger.fits(second, MIB // 4)
    assert first.ended == second.ended == 0


def test_the_largest_client_gets_no_more_at_the_cost_of_smaller_ones(book):
    for number in range(5):
        book.hold(Connection(f"c{number}"), 1.9)
    largest = Connection("large")
    book.hold(largest, 2)
    assert not book.ledger.fits(largest, MIB)
    assert book.ledger.fits(largest, MIB // 4)
