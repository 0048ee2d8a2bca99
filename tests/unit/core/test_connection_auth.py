"""Connection-based authentication: which fields tie a connection to a person."""

from __future__ import annotations

import pytest

from gateway.core.connection_auth import authenticates_connection


@pytest.mark.parametrize(
    "field",
    [
        (b"Authorization", b"NTLM TlRMTVNTUAAB"),
        (b"authorization", b"negotiate YII="),
        (b"AUTHORIZATION", b"Kerberos YII="),
        (b"authorization", b"Nego2 YII="),
        (b"authorization", b"X-Own-Scheme abc"),
        (b"authorization", b"\xff"),
        (b"authorization", b""),
        (b"www-authenticate", b"NTLM"),
        (b"www-authenticate", b'Basic realm="a", Negotiate'),
        (b"www-authenticate", b'Bearer realm="a",NTLM'),
        (b"WWW-Authenticate", b"Negotiate oYG2"),
        (b"proxy-authenticate", b"NTLM"),
        (b"persistent-auth", b"true"),
        (b"connection-auth", b"anna"),
        (b"proxy-support", b"Session-Based-Authentication"),
    ],
)
def test_what_proves_a_person_once_ties_the_connection(field):
    assert authenticates_connection([(b"x", b"y"), field])


@pytest.mark.parametrize(
    "field",
    [
        (b"authorization", b"Basic YTpi"),
        (b"authorization", b"bearer abc"),
        (b"Authorization", b"AWS4-HMAC-SHA256 Credential=a/b"),
        (b"authorization", b"token abc"),
        (b"www-authenticate", b'Basic realm="the files"'),
        (b"www-authenticate", b'Digest realm="a", qop="auth"'),
        (b"x-authorization", b"NTLM abc"),
        (b"connection", b"keep-alive"),
    ],
)
def test_what_is_proved_with_each_request_leaves_the_connection_free(field):
    assert not authenticates_connection([field])
