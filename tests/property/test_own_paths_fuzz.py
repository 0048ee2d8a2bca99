"""Every own path, asked anything: a small answer in time, never a failure, a foreign place or a session for nothing.

The paths are those that the gateway registers itself, so a new one is fuzzed as soon as it exists. They are asked the
way the edge asks: through the canonicaliser and the pipeline, with the real stores, over a real identity provider.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urljoin, urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.config import load
from gateway.core.cookies import BINDING, BOUND, SESSION, SSO
from gateway.core.decision import StepUp
from gateway.core.navigation import Redirect
from gateway.core.reasons import REASONS
from gateway.core.request import Peer, RawRequest
from gateway.core.subject import Device, Identity
from gateway.demo.idp.provider import DevProvider, serving
from gateway.edge.mitm.connection import CAPABILITIES
from gateway.identity.devices.ca_files import found_pki
from gateway.identity.oidc.relying_party import Tokens
from gateway.identity.sessions.browser_sessions import BrowserSessions
from gateway.identity.sessions.login_sessions import LoginSession
from gateway.pipeline.verdicts import InteractionRequired, LocalRequest
from gateway.replies.replies import Reply
from gateway.wiring import Generation, ProcessResources
from gateway.wiring.endpoints import router_of
from tests.support.paths import POLICIES

pytestmark = pytest.mark.timeout(110)

HOST, WIKI = "gw.example.com", "wiki.example.com"
OWN, SERVICE = f"https://{HOST}", f"https://{WIKI}"
EXAMPLES, LIMIT_S, LIMIT_BYTES = 25, 2.0, 256 << 10
DEVICE = Device("laptop", "L" * 43)
CONFIG = """\
version: 1
name: Example
host: {host}
listen: {{address: 127.0.0.1, port: 443}}
tls: [{{certificate: pki/server.pem, key: pki/server.key}}]
devices: {{ca: pki/device-ca.pem, issuing_key: pki/device-ca.key, crl: pki/crl.pem}}
issuers:
  - issuer: {issuer}
    profile: zitadel
    audiences: ["{project}"]
    introspection: {{client_id: "{client}", key: {{file: secrets/provider.json}}}}
    login: {{client_id: "{app}", secret: {{file: secrets/text}}, slug: dev}}
    zitadel: {{token: {{file: secrets/api}}, webhook_keys: [{{file: secrets/text}}]}}
policy: {{path: {policies}}}
sessions: {{dbsc: true}}
shared_signals:
  receive: {{peer: {{issuer: "https://peer.example.com", audience: "{own}"}}}}
  transmit: {{follower: {{audience: follower, poll_token: {{file: secrets/text}}}}}}
services:
  wiki: {{host: {wiki}, upstream: "http://127.0.0.1:9", device: optional, allow: {{roles: [staff]}}}}
"""
EVIL = [
    "https://evil.example/",
    "//evil.example",
    "/\\evil.example",
    "\\\\evil.example",
    "https:evil.example",
    f"https://{HOST}@evil.example/",
    f"https://{HOST}.evil.example/",
    "javascript:alert(1)",
    "/.gateway/me\r\nset-cookie: a=b",
    "%0d%0aset-cookie:%20a=b",
    "/%2f%2fevil.example",
    "\x00",
    "<script>alert(1)</script>",
    "'\"><img src=x>",
    "{{7*7}}",
    "../../etc/passwd",
    "\ud800",
    "a" * 5_000,
]


class Uncounted:
    """Metrics live in files that processes share; here is one process, and nobody reads them."""

    def policy(self, version: str) -> None:
        pass

    def decision(self, *_: object, **__: object) -> None:
        pass


class Site:
    """A whole generation of the gateway, in this process and on one loop; `ask` is one request."""

    def __init__(self, folder: Path, provider: DevProvider) -> None:
        found_pki(folder / "pki", [HOST, WIKI], now=time.time(), crl_life_s=86_400.0)
        (folder / "secrets").mkdir()
        (folder / "secrets" / "provider.json").write_bytes(provider.api_key_file)
        (folder / "secrets" / "text").write_text(secrets.token_urlsafe(32))
        (folder / "secrets" / "api").write_text(provider.instance.owner_token)
        for file in (folder / "secrets").iterdir():
            file.chmod(0o600)
        policies = POLICIES
        text = CONFIG.format(
            host=HOST,
            wiki=WIKI,
            own=OWN,
            issuer=provider.issuer,
            project=provider.project,
            client=provider.api_client,
            app=provider.app_client,
            policies=policies,
        )
        (folder / "gateway.yaml").write_text(text)
        self.issuer = provider.issuer
        self.runner = asyncio.Runner()
        self.addresses = (f"10.{a}.{b}.{c}" for a, b, c in itertools.product(range(256), repeat=3))
        self.run(self._open(folder / "gateway.yaml"))

    def run(self, work: Any) -> Any:
        return self.runner.run(work)

    async def _open(self, path: Path) -> None:
        config = load(path)
        self.shared = await ProcessResources.open(config, Uncounted())  # type: ignore[arg-type]
        self.generation = await Generation.build(config, self.shared)
        self.fresh_limits()

    def fresh_limits(self) -> None:
        """As if nobody had asked before: no bucket is empty."""
        generation = self.generation
        self.router = router_of(
            generation.config, self.shared, generation.pipeline, generation.people, generation.signals
        )

    async def close(self) -> None:
        await self.generation.close()
        await self.shared.close()

    def paths(self) -> list[tuple[str, str]]:
        """Every method and path that the gateway answers itself, as it registered them."""
        table = {(method, endpoint) for endpoint in self.router.endpoints for method in endpoint.methods}
        return sorted((method, endpoint.path + "{slug}" * endpoint.path.endswith("/")) for method, endpoint in table)

    async def judge(self, method: str, target: str, head: list[tuple[str, str]]) -> Any:
        fields = [(name.encode("ascii"), value.encode("latin-1", "replace")) for name, value in head]
        host = next((value for name, value in head if name == "host"), HOST)
        peer = Peer(next(self.addresses), 4711, sni=host)
        return await self.generation.pipeline.judge(
            RawRequest(method.encode(), b"", target.encode("latin-1", "replace"), fields, "1.1"), peer, CAPABILITIES
        )

    async def ask(self, method: str, target: str, head: list[tuple[str, str]], body: bytes) -> Reply:
        """What the edge would send, had the handshake proven the device. Raises what an endpoint raises."""
        verdict = await self.judge(method, target, head)
        if not isinstance(verdict, LocalRequest):
            assert isinstance(verdict, Reply), verdict
            return verdict
        device = DEVICE if secrets.randbits(1) else None
        reply = await self.router.answer(verdict.facts, device, body)
        # A held request goes on in its place: the edge asks the pipeline, which has fuzz tests of its own.
        return reply if isinstance(reply, Reply) else Reply(400, (), b"", "resumed")

    # ---- what somebody has who is signed in ----

    async def materials(self) -> dict[str, str]:
        """A running session and everything that its browser and its pages know, by the marks that stand for it.

        The ticket alone is another browser's: with its own it would be no garbage.
        """
        now = time.time()
        identity = Identity(self.issuer, "ada", "session", "", now + 900, amr=("pwd",), auth_time=now, name="Ada")
        tokens = Tokens("access", None, None, now + 900)
        login = await self.generation.people.logins.create(identity, "", tokens, device_id="", agent="Firefox")
        assert isinstance(login, LoginSession)
        cookies = BrowserSessions(self.shared.documents, time.time, random)
        found = {"<sso>": await cookies.open(login, HOST, None), "<session>": await cookies.open(login, WIKI, None)}
        found["<login>"] = login.id
        plain = [("host", HOST), ("accept", "application/json"), ("cookie", f"{SSO}={found['<sso>']}")]
        found["<csrf>"] = json.loads((await self.ask("GET", "/.gateway/me", plain, b"")).body)["csrf"]
        _, found["<ticket>"] = await self._sent(
            f"/.gateway/login?held={(await self._waiting(None))[0]}", plain, "ticket"
        )
        found["<held>"], found["<binding>"] = await self._waiting(None)
        head = [("host", HOST), ("cookie", f"{BINDING}={found['<binding>']}")]
        _, found["<state>"] = await self._sent(f"/.gateway/login?held={found['<held>']}", head, "state")
        found["<step>"], _ = await self._waiting(StepUp(("otp",), 900))
        return found

    async def _waiting(self, demand: StepUp | None) -> tuple[str, str]:
        """A page of the wiki that waits: its id, and the browser's binding cookie."""
        head = [("host", WIKI), ("accept", "text/html"), ("sec-fetch-mode", "navigate")]
        verdict = await self.judge("GET", "/page", head)
        assert isinstance(verdict, InteractionRequired), verdict
        assert self.generation.people.sign_ins is not None
        way = await self.generation.people.sign_ins.login.start(verdict.facts, verdict.route, b"", step_up=demand)
        assert isinstance(way, Redirect)
        return way.location.rpartition("=")[2], way.cookies[0].partition("=")[2].partition(";")[0]

    async def _sent(self, target: str, head: list[tuple[str, str]], name: str) -> tuple[str, str]:
        reply = await self.ask("GET", target, head, b"")
        location = next(value for key, value in reply.headers if key == "location")
        return location, dict(parse_qsl(urlsplit(location).query))[name]


def random() -> str:
    return secrets.token_urlsafe(32)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with serving() as provider:
        made = Site(tmp_path_factory.mktemp("fuzz"), provider)
        yield made
        made.run(made.close())
        made.runner.close()


# ---- anything at all ----

MARKS = ["<sso>", "<session>", "<login>", "<csrf>", "<ticket>", "<held>", "<binding>", "<state>", "<step>"]
NAMES = [
    *("held", "issuer", "kind", "state", "code", "error", "iss", "ticket", "csrf", "action", "id", "step", "label"),
    *("answer", "saved", "logout_token", "token", "csr", "maxEvents", "ack", "setErrs", "returnImmediately"),
    *("next", "url", "redirect_uri", "return_to", "post_logout_redirect_uri", "id_token_hint", "error_description"),
]
KNOWN = ["dev", "peer", "follower", "totp", "recovery", "webauthn", "end", "end_others", "begin", "finish", "ask"]
KNOWN += ["prove", "remove", "true", "access_denied", OWN, SERVICE, "-1", "9" * 30]
HEADERS = [
    *("origin", "referer", "sec-fetch-site", "sec-fetch-mode", "accept", "content-type", "authorization", "dpop"),
    *("zitadel-signature", "secure-session-response", "sec-secure-session-id", "secure-session-skipped"),
    *("x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "forwarded", "x-real-ip", "x-http-method-override"),
    *("user-agent", "accept-language", "te", "expect", "range", "if-none-match", "x-requested-with", "via"),
]
WORTH = [
    *(OWN, SERVICE, "null", "same-origin", "cross-site", "none", "navigate", "cors", "text/html", "application/json"),
    *("application/x-www-form-urlencoded", "application/secevent+jwt", "multipart/form-data; boundary=x"),
    *("Bearer x", "DPoP x.y.z", "Bearer ", "Basic Og==", "t=1,v1=00", "a.b.c", "eyJhbGciOiJub25lIn0.e30."),
]
TEXT = st.one_of(
    st.sampled_from(EVIL),
    st.sampled_from(KNOWN),
    st.text(max_size=40),
    st.just("A" * 43),
    st.text("abcXYZ019-_", min_size=43, max_size=43),
)
MARKED = st.one_of(st.sampled_from(MARKS), TEXT)
COOKIE_NAMES = [SSO, SESSION, BINDING, BOUND, SSO.lower(), SESSION.removeprefix("__Host-"), "theme"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES) | TEXT, inner, max_size=3),
    max_leaves=8,
)


def fields_of(values: st.SearchStrategy[str]) -> st.SearchStrategy[list[tuple[str, str]]]:
    once = st.lists(st.tuples(st.sampled_from(NAMES), values), max_size=5, unique_by=lambda field: field[0])
    return st.one_of(once, once, once, st.lists(st.tuples(st.sampled_from(NAMES) | TEXT, values), max_size=6))


def requests(values: st.SearchStrategy[str]) -> st.SearchStrategy[dict[str, Any]]:
    """Everything of a request that its sender chooses."""
    cookies = st.lists(st.tuples(st.sampled_from(COOKIE_NAMES), values), max_size=5)
    known = st.dictionaries(st.sampled_from(COOKIE_NAMES), st.sampled_from(MARKS) | st.just("A" * 43), max_size=3)
    cookies = cookies | known.map(lambda found: list(found.items()))
    return st.fixed_dictionaries(
        {
            "parameter": values,
            "query": fields_of(values),
            "raw": st.sampled_from([False, False, False, True]),
            # As if the path's own page had made the address: its names, with values that are anything.
            "own query": st.booleans(),
            "host": st.sampled_from([*[HOST] * 8, WIKI, f"{HOST}:443"]),
            # Many values are refused with the head, before any path is asked; mostly there are none of those.
            "headers": st.one_of(
                st.lists(st.tuples(st.sampled_from(HEADERS), st.sampled_from(WORTH)), max_size=3),
                st.just([]),
                st.lists(st.tuples(st.sampled_from(HEADERS), st.sampled_from(WORTH) | values), max_size=6),
            ),
            "cookies": cookies,
            "form": fields_of(values),
            "json": JSON,
            "bytes": st.binary(max_size=200) | st.just(b"[" * 30_000) | st.just(b"a=b&" * 9_000),
            "kind": st.sampled_from(["form", "own form", "own form", "json", "bytes", "empty"]),
        }
    )


QUERIES = {
    "/.gateway/login": ("held", "issuer"),
    "/.gateway/step-up": ("held", "kind"),
    "/.gateway/factors": ("held",),
    "/.gateway/session": ("ticket",),
    "/.gateway/callback/{slug}": ("state", "code", "iss"),
}


def sent(request: Mapping[str, Any], path: str, known: Mapping[str, str]) -> tuple[str, list[tuple[str, str]], bytes]:
    """The target, head and body; marks become what they stand for."""

    def told(text: str) -> str:
        return known.get(text, text)

    def encoded(text: str) -> str:
        return quote(told(text).encode("utf-8", "surrogatepass"), safe="")

    parameter = encoded(request["parameter"])
    target = re.sub(r"\{[^}]*\}", lambda _: parameter or "x", path)
    pairs = [(name, told(value)) for name, value in request["query"]]
    if request["own query"] and path in QUERIES:
        pairs = [(name, told(value)) for name, (_, value) in zip(QUERIES[path], request["query"], strict=False)]
    if pairs:
        plain = "&".join(f"{name}={value}" for name, value in pairs)
        target += "?" + (plain if request["raw"] else "&".join(f"{encoded(n)}={encoded(v)}" for n, v in pairs))
    head = [("host", request["host"]), *((name, told(value)) for name, value in request["headers"])]
    if request["cookies"]:
        head.append(("cookie", "; ".join(f"{name}={told(value)}" for name, value in request["cookies"])))
    form = "&".join(f"{encoded(name)}={encoded(value)}" for name, value in request["form"])
    match request["kind"]:
        case "form":
            return target, [*head, ("content-type", "application/x-www-form-urlencoded")], form.encode()
        case "own form":
            # As from the gateway's own page, but for what stands in it.
            own = [("content-type", "application/x-www-form-urlencoded"), ("origin", OWN)]
            own += [("cookie", f"{SSO}={known['<sso>']}")] if "<sso>" in known else []
            head = [(name, value) for name, value in head if name not in {"origin", "cookie", "content-type"}]
            body = f"csrf={known.get('<csrf>', '')}&{'&'.join(p for p in form.split('&') if not p.startswith('csrf='))}"
            return target, head + own, body.encode()
        case "json":
            text = json.dumps(request["json"], default=str)
            return target, [*head, ("content-type", "application/json")], text.encode()
        case "bytes":
            return target, head, request["bytes"]
    return target, head, b""


# ---- and what never comes of it ----


def harmless(site: Site, reply: Reply, seconds: float) -> None:
    assert reply.status < 500 or reply.status == 503, reply.reason
    assert reply.reason == "local" or reply.reason in REASONS
    assert seconds < LIMIT_S
    assert len(reply.body) < LIMIT_BYTES
    assert sum(len(name) + len(value) for name, value in reply.headers) < 16_384
    assert b"<script>alert" not in reply.body
    assert b"<img src=x>" not in reply.body
    for name, value in reply.headers:
        assert re.fullmatch(r"[\x20-\x7e]*", value), name
        assert name in HEADERS_OF_OURS, name
        if name == "location":
            place = urlsplit(urljoin(OWN + "/", value.replace("\\", "/")))
            assert f"{place.scheme}://{place.netloc}" in {OWN, SERVICE, site.issuer}, value
        if name == "set-cookie":
            kept, _, rest = value.partition("=")
            assert kept == BINDING or (kept == SSO and rest.endswith("Max-Age=0")), kept
            assert "; Path=/; Secure; HttpOnly; SameSite=Lax" in rest


HEADERS_OF_OURS = {
    *("location", "set-cookie", "cache-control", "content-type", "x-content-type-options", "x-gateway-reason"),
    *("x-gateway-decision", "www-authenticate", "content-security-policy", "referrer-policy", "allow", "retry-after"),
    *("cross-origin-opener-policy", "cross-origin-resource-policy", "dpop-nonce", "secure-session-challenge"),
    *("content-length", "x-frame-options", "vary", "date"),
}


def fuzz(site: Site, method: str, path: str, values: st.SearchStrategy[str], known: Mapping[str, str]) -> None:
    @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(requests(values))
    def one(request: dict[str, Any]) -> None:
        target, head, body = sent(request, path, known)
        site.fresh_limits()
        started = time.monotonic()
        reply = site.run(site.ask(method, target, head, body))
        harmless(site, reply, time.monotonic() - started)

    one()


def test_garbage_gets_a_small_refusal_from_every_own_path(site: Site) -> None:
    for method, path in site.paths():
        fuzz(site, method, path, TEXT, {})


def test_nor_does_garbage_mixed_with_what_somebody_knows_who_is_signed_in(site: Site) -> None:
    for method, path in site.paths():
        fuzz(site, method, path, MARKED, site.run(site.materials()))


def test_every_way_to_ask_an_own_path_wrongly_is_refused(site: Site) -> None:
    for _, path in site.paths():
        target = re.sub(r"\{[^}]*\}", "dev", path)
        for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"):
            for variant in (target, target + "/", target + "%2f..", target.replace("/.gateway/", "/.gateway//")):
                started = time.monotonic()
                reply = site.run(site.ask(method, variant, [("host", HOST)], b""))
                harmless(site, reply, time.monotonic() - started)


def test_nobody_is_sent_to_a_place_that_came_with_a_request(site: Site) -> None:
    """Every parameter that might name a place, with everything that might be one, alone and beside what is real."""
    known = site.run(site.materials())
    real = {"/.gateway/login": f"held={known['<held>']}", "/.gateway/step-up": f"held={known['<step>']}"}
    for method, path in site.paths():
        if method != "GET":
            continue
        for value, name in itertools.product(EVIL, ("held", "issuer", "iss", "next", "redirect_uri", "kind", "ticket")):
            field = f"{name}={quote(value.encode('utf-8', 'surrogatepass'), safe='')}"
            for query in (field, f"{real.get(path, 'x=1')}&{field}"):
                head = [("host", HOST), ("accept", "text/html"), ("cookie", f"{SSO}={known['<sso>']}")]
                site.fresh_limits()
                reply = site.run(site.ask(method, f"{path.replace('{slug}', 'dev')}?{query}", head, b""))
                harmless(site, reply, 0.0)


def test_the_paths_of_every_part_are_among_those_that_are_asked(site: Site) -> None:
    found = {path for _, path in site.paths()}
    parts = ("login", "callback", "session", "me", "logout", "step-up", "factors", "dbsc", "ssf", "posture", "enrol")
    parts += ("renew", "jwks", "crl", "backchannel", "hooks")
    assert [part for part in parts if not any(path.startswith(f"/.gateway/{part}") for path in found)] == []
