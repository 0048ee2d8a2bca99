import pytest

from gateway.core.request import Peer, RequestFacts


@pytest.fixture
def facts():
    """A request, changed as a test needs it."""

    def make(**changes):
        values = dict.fromkeys(("segments", "query_fields", "headers"), ())
        values |= {"method": "GET", "host": "a.example", "path": "/", "query": "", "protocol": "h2"}
        values |= {"content_length": 0, "peer": Peer("127.0.0.1", 1), "client_ip": "127.0.0.1"}
        return RequestFacts(**{**values, **changes})

    return make
