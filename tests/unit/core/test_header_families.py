"""The data about other products' headers: well-formed, sourced, and none that clients need."""

from __future__ import annotations

import re

from gateway.core.header_families import FAMILIES
from gateway.core.header_names import is_asserted, spelling


def test_every_family_names_its_source_and_something():
    for family in FAMILIES:
        assert family.source.startswith("https://"), family.product
        assert family.names or family.prefixes, family.product


def test_every_entry_is_the_one_spelling_that_others_fold_into():
    for family in FAMILIES:
        for entry in (*family.names, *family.prefixes):
            assert entry == spelling(entry)
            assert re.fullmatch(r"-?[a-z0-9-]{2,}", entry), entry


def test_no_entry_repeats_what_another_covers():
    prefixes = [prefix for family in FAMILIES for prefix in family.prefixes]
    names = [name for family in FAMILIES for name in family.names]
    assert len(names) == len(set(names))
    assert len(prefixes) == len(set(prefixes))
    assert not [name for name in names if name.startswith(tuple(prefixes))]


def test_no_header_of_the_standards_for_clients_is_taken_for_a_proxys():
    standard = (
        *("accept", "accept-language", "authorization", "baggage", "cache-control", "cookie", "content-type", "date"),
        *("depth", "destination", "dnt", "from", "if-match", "max-forwards", "origin", "prefer", "priority", "range"),
        *("referer", "save-data", "sec-fetch-site", "sec-websocket-key", "user-agent", "via", "traceparent"),
        *("x-csrf-token", "x-requested-with", "idempotency-key", "last-event-id", "grpc-timeout", "x-grpc-web"),
        *("soapaction", "tus-resumable", "upload-offset"),
    )
    assert not [name for name in standard if is_asserted(name)]
