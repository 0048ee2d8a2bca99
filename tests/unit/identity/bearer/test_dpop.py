"""DPoP: one proof, one request, one token, one key; every variation of it is refused (RFC 9449)."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.adapters.sqlite.store import SqliteStore
from gateway.core.canonical import admit, canonical_url
from gateway.core.ports.stores import StoreDown
from gateway.core.reasons import Refusal
from gateway.core.request import Peer, RawRequest, RequestFacts
from gateway.core.routes import Route
from gateway.core.subject import Device, Identity, Session
from gateway.identity.bearer.dpop import PURPOSE, Dpop, speaks_dpop
from gateway.identity.bearer.sessions import BearerSessions
from gateway.identity.jose.key_proof import ClaimedProof, read_proof, thumbprint
from tests.support.issuer_world import NOW, Clock
from tests.support.pki_world import reason_of
from tests.support.proof_world import Holder

TOKEN, URL, THUMB = "eyJh.eyJz.c2ln", "https://wiki.example.com/a/b", "A" * 43
HOLDER = Holder()
JKT = thumbprint(HOLDER.jwk) or ""
ROUTE = Route("wiki", "wiki.example.com")


def origin(host: str) -> str:
    return f"https://{host}"


def ath(token: str = TOKEN) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(token.encode()).digest()).rstrip(b"=").decode()


def facts(
    *proofs: str, target: str = "/a/b", method: str = "GET", authorization: str = f"DPoP {TOKEN}", host: str = ""
) -> RequestFacts:
    fields = [(b"host", host.encode() or b"wiki.example.com"), *((b"dpop", proof.encode()) for proof in proofs)]
    if authorization:
        fields.append((b"authorization", authorization.encode()))
    raw = RawRequest(method.encode(), b"", target.encode(), fields, "1.1")
    found = admit(raw, Peer("192.0.2.7", 4711, sni="wiki.example.com"), own_ports=frozenset({8443}))
    assert isinstance(found, RequestFacts), found
    return found


class World:
    def __init__(self, folder: Path) -> None:
        self.clock = Clock()
        self.store = SqliteStore(folder / "gateway.sqlite", bytes(32), self.clock)
        self.dpop = Dpop(self.store, self.store, self.clock, origin=origin)
        self.sessions = BearerSessions(self.store, self.clock, self.dpop)

    def nonce(self, dpop: Dpop | None = None) -> str:
        ((name, value),) = (dpop or self.dpop).answer_headers(facts())
        assert name == "dpop-nonce"
        return value

    def proof(self, header: Mapping[str, Any] | None = None, holder: Holder = HOLDER, **claims: Any) -> str:
        said = {
            "jti": secrets.token_urlsafe(8),
            "htm": "GET",
            "htu": URL,
            "iat": int(self.clock()),
            "ath": ath(),
            "nonce": self.nonce(),
        }
        head = {"typ": "dpop+jwt", "alg": holder.algorithm, "jwk": holder.jwk} | dict(header or {})
        return holder.sign(head, said | claims)

    async def ask(self, *proofs: str, jkt: str = JKT, **request: Any) -> str:
        found = await self.dpop.verify(facts(*proofs, **request), TOKEN, jkt)
        return "ok" if found is None else reason_of(found)

    async def bind(self, confirmation: Mapping[str, str], request: RequestFacts, device: Device | None = None) -> Any:
        ada = Identity("https://id", "ada", "jwt", "sid-1", NOW + 600, confirmation=confirmation)
        found = await self.sessions.bind(ada, device, request, ROUTE)
        return found.bound_by if isinstance(found, Session) else reason_of(found)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    assert await made.ask() == "dpop_proof_invalid"  # the first request brings the shared secret along
    yield made
    await made.store.close()


# ---- vectors of RFC 9449 ----

VECTOR = (
    "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJoRj"
    "QyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In19.eyJqdGki"
    "OiJlMWozVl9iS2ljOC1MQUVCIiwiaHRtIjoiR0VUIiwiaHR1IjoiaHR0cHM6Ly9yZXNvdXJjZS5leGFtcGxlLm9yZy9wcm90ZWN0ZWRyZXNvdXJjZS"
    "IsImlhdCI6MTU2MjI2MjYxOCwiYXRoIjoiZlVIeU8ycjJaM0RaNTNFc05yV0JiMHhXWG9hTnk1OUlpS0NBcWtzbVFFbyJ9.2oW9RP35yRqzhrtNP86L"
    "-Ey71EOptxRimPPToA1plemAgR6pxHF8y6-yqyVnmcw6Fy1dqd-jfxSYoMxhAJpLjA"
)
VECTOR_TOKEN = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU"
VECTOR_JKT = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"


def test_the_example_of_section_7_verifies() -> None:
    proof = read_proof(VECTOR, typ="dpop+jwt", algorithms=("ES256",), reason="dpop_proof_invalid")
    assert isinstance(proof, ClaimedProof)
    assert proof.jwk is not None
    assert proof.is_signed_by(proof.jwk)
    assert thumbprint(proof.jwk) == VECTOR_JKT
    assert proof.claims["ath"] == ath(VECTOR_TOKEN)


async def test_all_that_the_example_lacks_here_is_the_nonce(world: World) -> None:
    raw = RawRequest(
        b"GET", b"", b"/protectedresource", [(b"host", b"resource.example.org"), (b"dpop", VECTOR.encode())], "1.1"
    )
    request = admit(raw, Peer("192.0.2.7", 1, sni="resource.example.org"))
    assert isinstance(request, RequestFacts)
    world.clock.now = 1_562_262_618.0
    assert await world.dpop.verify(request, VECTOR_TOKEN, VECTOR_JKT) == Refusal("dpop_nonce_required")
    assert (await world.dpop.verify(request, "another", VECTOR_JKT)) == Refusal("dpop_proof_invalid", "ath")


# ---- what a proof has to be ----


@pytest.mark.parametrize("kind", ["ES256", "EdDSA", "RS256"])
async def test_a_good_proof_is_taken_once(world: World, kind: str) -> None:
    holder = Holder(kind)
    proof, jkt = world.proof(holder=holder), thumbprint(holder.jwk) or ""
    assert await world.ask(proof, jkt=jkt) == "ok"
    assert await world.ask(proof, jkt=jkt) == "dpop_proof_invalid"
    assert await world.ask(world.proof(holder=holder), jkt=jkt) == "ok"


async def test_a_proof_used_by_another_worker_is_used(world: World) -> None:
    proof = world.proof()
    other = Dpop(world.store, world.store, world.clock, origin=origin)
    assert await other.verify(facts(proof), TOKEN, JKT) is None
    assert await world.ask(proof) == "dpop_proof_invalid"
    assert world.nonce(other) == world.nonce()


async def test_the_same_name_under_another_key_is_another_proof(world: World) -> None:
    other = Holder()
    assert await world.ask(world.proof(jti="1")) == "ok"
    assert await world.ask(world.proof(holder=other, jti="1"), jkt=thumbprint(other.jwk) or "") == "ok"


@pytest.mark.parametrize(
    "claims",
    [
        {"jti": None},
        {"jti": ""},
        {"jti": 7},
        {"jti": "a" * 513},
        {"htm": None},
        {"htm": "POST"},
        {"htm": "get"},
        {"htu": None},
        {"htu": "https://shop.example.com/a/b"},
        {"htu": "https://wiki.example.com/a/c"},
        {"htu": "https://wiki.example.com/a/b/"},
        {"htu": "https://wiki.example.com"},
        {"htu": "http://wiki.example.com/a/b"},
        {"htu": "https://wiki.example.com:8443/a/b"},
        {"htu": "https://ada@wiki.example.com/a/b"},
        {"htu": "https://wiki.example.com/a/../a/b"},
        {"htu": "/a/b"},
        {"htu": ["https://wiki.example.com/a/b"]},
        {"htu": "https://wiki.example.com/" + "a" * 7_000},
        {"ath": None},
        {"ath": ath("another token")},
        {"ath": ath() + "="},
        {"ath": 1},
        {"iat": None},
        {"iat": "now"},
        {"iat": True},
        {"iat": NOW - 61},
        {"iat": NOW + 11},
        {"iat": NOW * 1_000},
    ],
)
async def test_a_proof_that_says_anything_else_is_refused(world: World, claims: dict[str, Any]) -> None:
    assert await world.ask(world.proof(**claims)) == "dpop_proof_invalid"


@pytest.mark.parametrize(
    "header",
    [
        {"typ": "JWT"},
        {"typ": None},
        {"alg": "none"},
        {"alg": "HS256"},
        {"alg": "RS256"},
        {"alg": "ES512"},
        {"jwk": None},
        {"jwk": {}},
        {"jwk": HOLDER.private_jwk()},
        {"jwk": HOLDER.jwk | {"use": "enc"}},
        {"jwk": HOLDER.jwk | {"x": HOLDER.jwk["x"] + "="}},
        {"jwk": Holder().jwk},
        {"jwk": {"kty": "oct", "k": "AA"}},
        {"crit": ["b64"]},
    ],
)
async def test_a_header_that_says_anything_else_is_refused(world: World, header: dict[str, Any]) -> None:
    assert await world.ask(world.proof(header)) == "dpop_proof_invalid"


async def test_a_weak_rsa_key_proves_nothing(world: World) -> None:
    weak = Holder("weak")
    assert await world.ask(world.proof(holder=weak), jkt=thumbprint(weak.jwk) or "") == "dpop_proof_invalid"


async def test_two_proofs_are_none(world: World) -> None:
    assert await world.ask(world.proof(), world.proof()) == "dpop_proof_invalid"
    assert await world.ask() == "dpop_proof_invalid"
    assert await world.ask("x" * 9_000) == "dpop_proof_invalid"


async def test_a_good_proof_of_another_key_is_a_mismatch_and_is_not_used_up(world: World) -> None:
    other = Holder()
    proof = world.proof(holder=other)
    for jkt in (JKT, "", "\u00e9", "\ud800"):
        assert await world.ask(proof, jkt=jkt) == "binding_mismatch"
    assert await world.ask(proof, jkt=thumbprint(other.jwk) or "") == "ok"


@pytest.mark.parametrize(
    ("htu", "target"),
    [
        ("HTTPS://WIKI.example.com:443/a/b", "/a/b"),
        ("https://wiki.example.com/a/b?x=1#y", "/a/b?x=2"),
        ("https://wiki.example.com/%61/b", "/a/b"),
        ("https://wiki.example.com/a/b", "/%61/b"),
        ("https://wiki.example.com", "/"),
        ("https://wiki.example.com/", "/?q"),
        ("https://wiki.example.com/%c3%a4", "/%C3%A4"),
    ],
)
async def test_other_spellings_of_the_same_address_are_the_same(world: World, htu: str, target: str) -> None:
    assert await world.ask(world.proof(htu=htu), target=target) == "ok"


async def test_the_port_that_the_client_asked_for_counts(world: World) -> None:
    proof = world.proof(htu="https://wiki.example.com:8443/a/b")
    assert await world.ask(proof, host="wiki.example.com:8443") == "ok"


@given(st.text(max_size=60) | st.text(":/?#@[]%.wiki exampl", max_size=40).map("https://{}".format))
def test_whatever_is_no_address_of_ours_has_no_canonical_form_or_a_stable_one(text: str) -> None:
    found = canonical_url(text)
    assert found is None or canonical_url(found) == found


# ---- nonces ----


async def test_a_nonce_is_good_for_two_steps_and_from_this_gateway_alone(world: World) -> None:
    nonce = world.nonce()
    for wrong in (None, "", "x", 7, nonce[:-1], nonce + "A", "\u00e9"):
        assert await world.ask(world.proof(nonce=wrong)) == "dpop_nonce_required"
    world.clock.pass_(60)
    assert world.nonce() != nonce
    assert await world.ask(world.proof(nonce=nonce)) == "ok"
    world.clock.pass_(60)
    assert await world.ask(world.proof(nonce=nonce)) == "dpop_nonce_required"
    assert await world.ask(world.proof()) == "ok"


async def test_a_proof_without_a_good_nonce_is_not_used_up_and_can_be_made_anew(world: World) -> None:
    assert await world.ask(world.proof(jti="1", nonce=None)) == "dpop_nonce_required"
    assert await world.ask(world.proof(jti="1")) == "ok"


async def test_only_a_client_that_speaks_dpop_is_told_a_nonce(world: World) -> None:
    for request in (facts(), facts("x", authorization=""), facts(authorization="dpop x")):
        assert speaks_dpop(request)
        assert world.dpop.answer_headers(request) == (("dpop-nonce", world.nonce()),)
    for authorization in ("", f"Bearer {TOKEN}", "DPoPx y"):
        assert world.dpop.answer_headers(facts(authorization=authorization)) == ()
    assert Dpop(world.store, world.store, origin=origin).answer_headers(facts()) == ()


async def test_the_secret_is_made_once_for_all_workers_and_shown_nowhere(world: World) -> None:
    ((_, _, secret),) = await world.store.secrets(PURPOSE)
    assert len(secret) == 32
    assert repr(world.dpop) == "Dpop()"
    assert secret.hex() not in json.dumps(world.nonce())


async def test_a_store_that_is_down_proves_nothing(world: World) -> None:
    proof = world.proof()
    await world.store.close()
    with pytest.raises(StoreDown):
        await world.dpop.verify(facts(proof), TOKEN, JKT)
    with pytest.raises(StoreDown):
        await Dpop(world.store, world.store, origin=origin).verify(facts(proof), TOKEN, JKT)


# ---- tokens and the scheme they come under ----


async def test_a_bound_token_with_its_proof_makes_a_bound_session(world: World) -> None:
    assert await world.bind({"jkt": JKT}, facts(world.proof())) == ("dpop",)


async def test_a_token_may_be_bound_to_a_certificate_as_well(world: World) -> None:
    both, device = {"jkt": JKT, "x5t#S256": THUMB}, Device("d1", THUMB)
    assert await world.bind(both, facts(world.proof()), device) == ("x5t#S256", "dpop")
    assert await world.bind(both, facts(world.proof())) == "binding_mismatch"
    assert await world.bind(both, facts(), device) == "dpop_proof_invalid"


async def test_a_bound_token_is_no_bearer_token(world: World) -> None:
    for authorization in (f"Bearer {TOKEN}", "", f"Basic {TOKEN}"):
        request = facts(world.proof(), authorization=authorization)
        assert await world.bind({"jkt": JKT}, request) == "binding_mismatch"


async def test_an_unbound_token_needs_no_proof_and_may_have_none(world: World) -> None:
    assert await world.bind({}, facts(authorization=f"Bearer {TOKEN}")) == ()
    assert await world.bind({}, facts(world.proof(), authorization=f"Bearer {TOKEN}")) == "binding_mismatch"
    assert await world.bind({}, facts(world.proof())) == "binding_mismatch"
    assert await world.bind({}, facts()) == "binding_mismatch"


async def test_the_proof_is_for_the_very_token_that_came(world: World) -> None:
    proof = world.proof(ath=ath("eyJh.eyJz.other"))
    assert await world.bind({"jkt": JKT}, facts(proof)) == "dpop_proof_invalid"
    assert await world.bind({"jkt": JKT}, facts(proof, authorization="DPoP eyJh.eyJz.other")) == ("dpop",)


async def test_a_revoked_session_does_not_use_up_a_proof(world: World) -> None:
    await world.bind({"jkt": JKT}, facts(world.proof()))
    ((record),) = await world.store.sessions()
    await world.store.revoke_session(record.id, NOW, "left")
    proof = world.proof()
    assert await world.bind({"jkt": JKT}, facts(proof)) == "session_revoked"
    assert await world.ask(proof) == "ok"


async def test_an_open_connection_is_judged_again_without_a_new_proof(world: World) -> None:
    ada = Identity("https://id", "ada", "jwt", "sid-1", NOW + 600, confirmation={"jkt": JKT})
    request = facts(world.proof())
    begun = await world.sessions.bind(ada, None, request, ROUTE)
    assert isinstance(begun, Session)
    assert reason_of(await world.sessions.bind(ada, None, request, ROUTE)) == "dpop_proof_invalid"
    world.clock.pass_(500)
    assert await world.sessions.bind(ada, None, request, ROUTE, before=begun) == begun
    await world.store.revoke_session(begun.id, NOW, "left")
    assert reason_of(await world.sessions.bind(ada, None, request, ROUTE, before=begun)) == "session_revoked"


async def test_another_sessions_proofs_count_for_nothing(world: World) -> None:
    ada = Identity("https://id", "ada", "jwt", "sid-1", NOW + 600, confirmation={"jkt": JKT})
    other = Session("b_other", NOW, ("dpop",))
    assert reason_of(await world.sessions.bind(ada, None, facts(), ROUTE, before=other)) == "dpop_proof_invalid"


@pytest.mark.parametrize(
    ("host", "htu", "outcome"),
    [
        ("wiki.example.com:8443", "https://wiki.example.com:8443/a/b", "ok"),
        ("wiki.example.com", "https://wiki.example.com:8443/a/b", "ok"),
        ("wiki.example.com", "https://wiki.example.com/a/b", "dpop_proof_invalid"),
        ("wiki.example.com:443", "https://wiki.example.com/a/b", "dpop_proof_invalid"),
        ("wiki.example.com:8443", "https://wiki.example.com/a/b", "dpop_proof_invalid"),
        ("wiki.example.com:8443", "https://wiki.example.com:9443/a/b", "dpop_proof_invalid"),
    ],
)
async def test_a_proof_for_another_port_of_this_host_is_none(world: World, host: str, htu: str, outcome: str) -> None:
    world.dpop = Dpop(world.store, world.store, world.clock, origin=lambda name: f"https://{name}:8443")
    world.sessions = BearerSessions(world.store, world.clock, world.dpop)
    await world.ask("none")
    assert await world.ask(world.proof(htu=htu), host=host) == outcome
