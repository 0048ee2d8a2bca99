"""Members of X-Forwarded-For and Forwarded, as proxies of the field write them."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from gateway.core.canonical import admit
from gateway.core.forwarded import BadHop, forwarded_hops, read_hop
from gateway.core.request import IpNetwork, Peer, RawRequest, RequestFacts

TRUSTED: list[IpNetwork] = [ip_network("10.0.0.0/8"), ip_network("2001:db8:1::/48")]


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.43", "192.0.2.43"),
        ("192.0.2.43:47011", "192.0.2.43"),  # Azure Application Gateway
        ("2001:db8:cafe::17", "2001:db8:cafe::17"),  # AWS
        ("[2001:db8:cafe::17]", "2001:db8:cafe::17"),
        ("[2001:db8:cafe::17]:47011", "2001:db8:cafe::17"),  # RFC 7239 section 6
        ("192.0.2.43:_port", "192.0.2.43"),  # an obfuscated port, section 6.3
        ("::ffff:192.0.2.43", "192.0.2.43"),
        ("[::ffff:192.0.2.43]:1", "192.0.2.43"),
    ],
)
def test_an_address_is_read_with_and_without_port_and_brackets(text, address):
    assert str(read_hop(text)) == address


@pytest.mark.parametrize("text", ["unknown", "Unknown", "_hidden", "_SEVKISEK", "unknown:80", "_gazonk:_p"])
def test_an_unknown_or_obfuscated_hop_has_no_address(text):
    assert read_hop(text) is None


@pytest.mark.parametrize(
    "text",
    ["example.com", "192.0.2.43:", "192.0.2.43:70000", "192.0.2.43:x", "[192.0.2.43]", "[2001:db8::1", "2001:db8::1]",
     "[2001:db8::1]x", "[2001:db8::1]:", "fe80::1%eth0", "[fe80::1%1]:2", "192.0.2.043", "192.0.2", "_", "",
     "192.0.2.1 192.0.2.2", "0x7f000001", "-", '"192.0.2.1"'],
)  # fmt: skip
def test_what_is_no_hop_is_an_error(text):
    with pytest.raises(BadHop):
        read_hop(text)


def test_empty_members_are_none_at_all():
    assert forwarded_hops(["", " , 192.0.2.1,, ", "192.0.2.2,"]) == ["192.0.2.1", "192.0.2.2"]


def client_of(peer: str, *values: str) -> str | None:
    headers = [(b"host", b"a.example"), *((b"x-forwarded-for", value.encode()) for value in values)]
    facts = admit(
        RawRequest(b"GET", b"", b"/", tuple(headers), "1.1", ended=True),
        Peer(peer, 1, sni="a.example"), trusted_proxies=TRUSTED,
    )  # fmt: skip
    return facts.client_ip if isinstance(facts, RequestFacts) else None


@pytest.mark.parametrize(
    ("values", "client"),
    [
        (("192.0.2.1:4711",), "192.0.2.1"),
        (("203.0.113.9, 192.0.2.1, 10.1.2.3:99",), "192.0.2.1"),
        (("192.0.2.1", ", ,10.9.9.9"), "192.0.2.1"),
        (("[2001:db8:2::1]:443, [2001:db8:1::5]:80",), "2001:db8:2::1"),
        (("192.0.2.1, unknown",), "10.0.0.1"),
        (("192.0.2.1, _hidden, 10.0.0.7",), "10.0.0.7"),
        (("",), "10.0.0.1"),
    ],
)
def test_behind_a_trusted_proxy_the_client_is_the_nearest_that_is_none(values, client):
    assert client_of("10.0.0.1", *values) == client


def test_what_a_stranger_says_of_himself_is_not_looked_at():
    assert client_of("192.0.2.66", "nonsense, 10.0.0.1") == "192.0.2.66"


def test_what_a_trusted_proxy_says_must_be_an_address():
    assert client_of("10.0.0.1", "192.0.2.1, nonsense") is None
