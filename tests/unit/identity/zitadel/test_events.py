from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.identity.zitadel.events import EVENT_TYPES, Event, EventCursor, ending_of, event_of

START = datetime(2027, 1, 15, 8, tzinfo=UTC)


def event(number: int, at_ms: int, kind: str = "user.locked") -> Event:
    return Event(kind, "user", str(number), 1, START + timedelta(milliseconds=at_ms))


def read_all(stored: list[Event], cursor: EventCursor, limit: int) -> tuple[list[str], EventCursor]:
    """Read as the loop does: pages strictly after `since`, until one is not full."""
    seen: list[str] = []
    while True:
        later = sorted((one for one in stored if one.created_at > cursor.since), key=lambda one: one.created_at)
        page = later[:limit]
        seen += [one.key for one in cursor.fresh(page)]
        cursor = cursor.after(page, is_full=len(page) >= limit)
        if len(page) < limit:
            return seen, cursor


@given(
    st.lists(st.integers(0, 20_000), max_size=60).filter(lambda times: all(times.count(one) < 4 for one in times)),
    st.integers(4, 12),
    st.integers(0, 60),
)
def test_every_event_is_seen_once_whatever_the_page(times: list[int], limit: int, later: int) -> None:
    stored = [event(number, at) for number, at in enumerate(times)]
    first = [one for one in stored if one.created_at <= START + timedelta(milliseconds=20_000 - later * 300)]
    seen, cursor = read_all(first, EventCursor(START - timedelta(seconds=1)), limit)
    again, cursor = read_all(stored, cursor, limit)
    assert sorted(seen + again) == sorted(one.key for one in stored)
    assert read_all(stored, cursor, limit)[0] == []


def test_an_event_that_appears_late_within_the_overlap_is_seen() -> None:
    seen, cursor = read_all([event(1, 10_000)], EventCursor(START), 10)
    late, _ = read_all([event(1, 10_000), event(2, 6_000)], cursor, 10)
    assert (seen, late) == (["user|1|1"], ["user|2|1"])


def test_one_instant_that_fills_a_page_does_not_stop_the_loop() -> None:
    seen, cursor = read_all([event(number, 500) for number in range(9)], EventCursor(START), 4)
    assert len(seen) == 4
    assert read_all([event(99, 900)], cursor, 4)[0] == ["user|99|1"]


def entry(**changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "aggregate": {"id": "42", "type": {"type": "user"}},
        "sequence": "12",
        "creationDate": "2027-01-15T08:00:00.123456Z",
        "type": {"type": "user.locked"},
    }
    return found | changes


def test_an_entry_of_the_events_api_is_read() -> None:
    found = event_of(entry(payload={"userId": "1"}))
    assert found is not None
    assert (found.type, found.key, found.payload) == ("user.locked", "user|42|12", {"userId": "1"})
    assert found.created_at == datetime(2027, 1, 15, 8, 0, 0, 123456, UTC)


def test_a_sequence_of_zero_is_left_out() -> None:
    one = entry()
    del one["sequence"]
    found = event_of(one)
    assert found is not None
    assert found.sequence == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"aggregate": None},
        {"aggregate": {"id": 42, "type": {"type": "user"}}},
        {"aggregate": {"id": "", "type": {"type": "user"}}},
        {"type": "user.locked"},
        {"type": {}},
        {"sequence": "-1"},
        {"sequence": []},
        {"creationDate": "yesterday"},
        {"creationDate": None},
    ],
)
def test_an_entry_that_cannot_be_read_is_none(changes: dict[str, Any]) -> None:
    assert event_of(entry(**changes)) is None


def test_every_event_we_ask_for_ends_something_or_tells_whose_a_grant_is() -> None:
    idle = [kind for kind in EVENT_TYPES if ending_of(event(1, 0, kind)) is None]
    assert idle == ["user.grant.added"]
