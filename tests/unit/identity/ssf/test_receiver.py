"""Shared signals: two gateways, one of which follows the other, over real stores and real signatures."""

import json
from dataclasses import replace

import jwt
import pytest

from gateway.config import Issuer
from gateway.core.ports.http import HttpAnswer, Unreachable
from gateway.core.ports.stores import Change, DeviceRecord, SessionRecord
from gateway.core.reasons import Refusal
from gateway.demo.idp.token_issuer import Key
from gateway.identity.bearer.sessions import session_id
from gateway.identity.oidc.discovery import IssuerDirectory
from gateway.identity.ssf.events import (
    ASSURANCE,
    COMPLIANCE,
    CREDENTIAL,
    RISK,
    SESSION_REVOKED,
    TYP,
    EventSubject,
    SecurityEvent,
)
from gateway.identity.ssf.receiver import RISKS, SignalReceiver, Source, error_of
from gateway.identity.ssf.transmitter import SignalTransmitter, Stream
from gateway.pipeline.assertion import Asserter
from tests.support.login_world import ISSUER, LAPTOP, WIKI, Browser, World

SENDER, US = "https://other.example.com", "https://us.example.com/signals"
ADA = EventSubject(ISSUER, "ada")


class News:
    """Changes in memory."""

    def __init__(self):
        self.all = []

    async def announce(self, kind, key):
        self.all.append(Change(len(self.all) + 1, kind, key))

    async def latest(self):
        return len(self.all)

    async def changes(self, after):
        return None if after > len(self.all) else self.all[after:]

    async def wait(self, after, timeout_s):
        pass


class Wire:
    """What the receiver fetches and the transmitter pushes to."""

    def __init__(self, jwks):
        self.jwks, self.pushed, self.status, self.down = jwks, [], 202, False
        self.answer = b""

    async def get(self, url, headers=None):
        found = {"issuer": SENDER, "jwks_uri": f"{SENDER}/jwks"}
        return HttpAnswer(200, {}, json.dumps(self.jwks() if url.endswith("/jwks") else found).encode())

    async def post_bytes(self, url, content, headers):
        if self.down:
            raise Unreachable("refused")
        self.pushed.append((url, content.decode(), headers))
        return HttpAnswer(self.status, {}, self.answer)


class Pair:
    """A transmitter and a receiver, each with what it needs."""

    def __init__(self, world):
        self.world, self.news, self.heard = world, News(), []
        self.asserter = Asserter(world.store, SENDER, world.clock)
        self.wire = Wire(self.asserter.jwks)
        trust = Issuer(issuer=SENDER, audiences=(US,), algorithms=("ES256", "RS256"))
        self.directory = IssuerDirectory(trust, self.wire, world.clock)
        self.source = Source("other", trust, self.directory, ISSUER)
        self.receiver = SignalReceiver(
            self.source, world.logins, world.logins, world.store, world.documents, self.news, world.clock
        )

    def transmitter(self, **stream):
        settings = {"push_url": "https://us/push", "push_token": "t0ken", "http": self.wire} | stream
        kinds = frozenset({SESSION_REVOKED, COMPLIANCE, CREDENTIAL, RISK})
        return SignalTransmitter(
            [Stream("us", US, kinds, **settings)],
            SENDER,
            self.asserter.sign_claims,
            self.world.store,
            self.world.store,
            self.world.documents,
            self.news,
            self.world.clock,
        )

    def signed(self, event, jti="one", typ=TYP, **changes):
        claims = event.claims(SENDER, US, jti, self.world.clock())
        claims = {name: value for name, value in (claims | changes).items() if value is not None}
        return self.asserter.sign_claims(claims, typ)

    async def refused(self, token):
        outcome = await self.receiver.receive(token)
        assert isinstance(outcome, Refusal), outcome
        return outcome.reason


@pytest.fixture
async def pair(tmp_path):
    world = World(tmp_path)
    made = Pair(world)
    await made.asserter.refresh()
    yield made
    await made.directory.close()
    await world.close()


async def signed_in(world):
    await world.sign_in(Browser(LAPTOP), f"https://{WIKI}/")
    return (await world.logins.of_subject(ISSUER, "ada"))[-1]


def event(kind, about=ADA, **details):
    return SecurityEvent(kind, about, 1.0, details)


# ---- followed ----


@pytest.mark.parametrize(
    "said",
    [
        event(SESSION_REVOKED),
        event(CREDENTIAL, change_type="revoke", credential_type="password"),
        SecurityEvent("account-disabled", ADA, 1.0),
    ],
    ids=lambda said: said.kind,
)
async def test_what_takes_access_away_ends_the_persons_sessions(pair, said):
    login = await signed_in(pair.world)
    token = pair.signed(said)
    if said.kind.startswith("account"):
        risc = "https://schemas.openid.net/secevent/risc/event-type/account-disabled"
        token = pair.signed(said, events={risc: {"reason": "hijacking"}})
    assert await pair.receiver.receive(token) == 1
    assert (await pair.world.logins.live(login.id)).reason == "session_revoked"


async def test_one_session_is_named_by_its_sid(pair):
    login = await signed_in(pair.world)
    await pair.receiver.receive(pair.signed(event(SESSION_REVOKED, EventSubject(ISSUER, "ada", "another-sid"))))
    assert (await pair.world.logins.live(login.id)).id == login.id
    await pair.receiver.receive(pair.signed(event(SESSION_REVOKED, EventSubject(ISSUER, "ada", login.sid)), "two"))
    assert (await pair.world.logins.live(login.id)).reason == "session_revoked"


async def test_a_session_of_another_gateway_ends_here_by_the_name_that_both_have_for_it(pair):
    login = await signed_in(pair.world)
    name = session_id(ISSUER, "ada", login.sid)
    await pair.receiver.receive(pair.signed(event(SESSION_REVOKED, EventSubject(ISSUER, "bob", name))))
    assert (await pair.world.logins.live(login.id)).id == login.id, "it is not Bob's"
    await pair.receiver.receive(pair.signed(event(SESSION_REVOKED, EventSubject(ISSUER, "ada", name)), "two"))
    assert (await pair.world.logins.live(login.id)).reason == "session_revoked"


async def test_a_session_that_was_never_used_here_is_ended_before_its_first_use(pair):
    for number, name in enumerate((session_id(ISSUER, "ada", "sid-1"), "sid-2")):
        await pair.receiver.receive(
            pair.signed(event(SESSION_REVOKED, EventSubject(ISSUER, "ada", name)), f"j{number}")
        )
        record = await pair.world.store.session(session_id(ISSUER, "ada", f"sid-{number + 1}"))
        assert (record.subject, record.revoked_why) == ("ada", "other: session-revoked")


async def test_a_new_credential_ends_nothing(pair):
    login = await signed_in(pair.world)
    assert await pair.receiver.receive(pair.signed(event(CREDENTIAL, change_type="create"))) == 1
    assert (await pair.world.logins.live(login.id)).id == login.id


async def test_a_device_that_does_not_comply_says_so_to_policy_and_older_news_change_nothing(pair):
    store = pair.world.store
    await store.add_device(DeviceRecord("laptop", "Laptop", "ada", "", "active", 1.0, posture={"disk": True}))
    about = EventSubject(device="laptop")
    await pair.receiver.receive(
        pair.signed(SecurityEvent(COMPLIANCE, about, 90.0, {"current_status": "not-compliant"}))
    )
    late = SecurityEvent(COMPLIANCE, about, 80.0, {"current_status": "compliant"})
    await pair.receiver.receive(pair.signed(late, "two"))
    posture = (await store.device("laptop")).posture
    assert posture == {"disk": True, "compliant": False, "compliance_by": "other", "compliance_at": 90.0}


async def test_a_persons_risk_is_kept_and_announced(pair):
    await pair.receiver.receive(pair.signed(event(RISK, current_level="MEDIUM", principal="USER")))
    (kept,) = pair.world.documents.of(RISKS)
    assert kept["other"]["level"] == "medium"
    assert [change.kind for change in pair.news.all] == ["subject"]


async def test_a_source_takes_back_neither_a_newer_word_nor_anothers(pair):
    """What one system has said of a person counts until it says otherwise itself."""
    for at, level in ((90.0, "HIGH"), (80.0, "LOW")):
        await pair.receiver.receive(pair.signed(SecurityEvent(RISK, ADA, at, {"current_level": level}), f"e{at}"))
    (kept,) = pair.world.documents.of(RISKS)
    assert kept["other"]["level"] == "high"
    await pair.receiver._at_risk(ISSUER, "ada", "low", 95.0)
    pair.receiver.source = replace(pair.receiver.source, name="siem")
    await pair.receiver._at_risk(ISSUER, "ada", "medium", 70.0)
    (kept,) = pair.world.documents.of(RISKS)
    assert {name: one["level"] for name, one in kept.items()} == {"other": "low", "siem": "medium"}


async def test_a_lower_assurance_takes_back_what_was_proven_here(pair):
    login = await signed_in(pair.world)
    await pair.world.logins.elevate(login.id, ["otp"], pair.world.clock() + 600)
    await pair.receiver.receive(pair.signed(event(ASSURANCE, current_level="nist-aal1", change_direction="decrease")))
    assert (await pair.world.logins.live(login.id)).elevated_until is None


async def test_the_same_token_twice_is_done_once(pair):
    token = pair.signed(event(RISK, current_level="LOW"))
    assert await pair.receiver.receive(token) == 1
    assert await pair.receiver.receive(token) == 1
    assert len(pair.news.all) == 1


async def test_an_event_that_nobody_here_knows_is_good_and_does_nothing(pair):
    unknown = {"https://schemas.openid.net/secevent/ssf/event-type/verification": {"state": "x"}}
    assert await pair.receiver.receive(pair.signed(event(RISK), events=unknown)) == 0
    assert pair.news.all == []


BAD = {
    "another audience": ({"aud": "https://elsewhere"}, "token_audience_wrong"),
    "another transmitter": ({"iss": "https://evil.example.com"}, "token_issuer_unknown"),
    "an expiry": ({"exp": 9e9}, "token_kind_wrong"),
    "a sub": ({"sub": "ada"}, "token_kind_wrong"),
    "no jti": ({"jti": None}, "token_malformed"),
    "no events": ({"events": {}}, "token_malformed"),
    "events of another type": ({"events": ["x"]}, "token_malformed"),
    "no subject": ({"sub_id": None}, "token_malformed"),
    "somebody else's person": (
        {"sub_id": {"format": "iss_sub", "iss": "https://bank.example.com", "sub": "ada"}},
        "token_malformed",
    ),
    "a subject of unknown form": ({"sub_id": {"format": "phone_number", "id": "1"}}, "token_malformed"),
    "the future": ({"iat": 9e9}, "token_malformed"),
    "long ago": ({"iat": 1}, "token_expired"),
}


@pytest.mark.parametrize("name", BAD)
async def test_what_is_wrong_with_a_token_is_said_and_nothing_is_done(pair, name):
    changes, reason = BAD[name]
    login = await signed_in(pair.world)
    assert await pair.refused(pair.signed(event(SESSION_REVOKED), **changes)) == reason
    assert (await pair.world.logins.live(login.id)).id == login.id


async def test_another_kind_of_token_is_none(pair):
    for typ in ("JWT", "logout+jwt", "at+jwt", "gateway-assertion+jwt"):
        assert await pair.refused(pair.signed(event(SESSION_REVOKED), typ=typ)) == "token_kind_wrong"


async def test_a_strangers_signature_is_no_signature(pair):
    stranger = Key()
    claims = event(SESSION_REVOKED).claims(SENDER, US, "one", pair.world.clock())
    for kid in (stranger.kid, pair.asserter.jwks()["keys"][0]["kid"]):
        token = jwt.encode(claims, stranger.private, "RS256", headers={"typ": TYP, "kid": kid})
        reason = await pair.refused(token)
        assert reason in {"token_key_unknown", "token_signature_invalid", "token_algorithm_refused"}
        assert error_of(Refusal(reason))["err"] == "invalid_key"


# ---- told ----


async def test_a_session_that_ends_here_is_pushed_there_and_ends_there(pair):
    login = await signed_in(pair.world)
    transmitter = pair.transmitter()
    await transmitter.follow()
    now = pair.world.clock()
    record = SessionRecord(login.id, ISSUER, "ada", "Ada", "", now, now, now + 600)
    await pair.world.store.put_session(record)
    await pair.world.store.revoke_session(login.id, now, "stolen")
    await pair.news.announce("session", login.id)
    await transmitter.follow()
    await transmitter.push(lambda *told: pair.heard.append(told))
    ((url, token, headers),) = pair.wire.pushed
    assert (url, headers["authorization"], headers["content-type"]) == (
        "https://us/push", "Bearer t0ken", "application/secevent+jwt",
    )  # fmt: skip
    told = jwt.decode(token, options={"verify_signature": False})["sub_id"]
    assert told["session"] == {"format": "opaque", "id": login.sid}, "what the issuer calls it, not we"
    assert await pair.receiver.receive(token) == 1
    await transmitter.push(lambda *told: pair.heard.append(told))
    assert len(pair.wire.pushed) == 1, "what was taken is not told again"


async def test_a_receiver_that_is_down_is_told_later_and_nothing_is_lost(pair):
    transmitter = pair.transmitter()
    await transmitter.tell(event(RISK, current_level="HIGH"))
    pair.wire.down = True
    await transmitter.push(lambda *told: pair.heard.append(told))
    assert pair.heard
    assert pair.wire.pushed == []
    pair.wire.down = False
    await transmitter.push(lambda *told: pair.heard.append(told))
    assert pair.wire.pushed == [], "not at once"
    pair.world.clock.now += 3
    await transmitter.push(lambda *told: pair.heard.append(told))
    assert len(pair.wire.pushed) == 1


@pytest.mark.parametrize(
    ("err", "sent_again"),
    [("authentication_failed", True), ("invalid_key", True), ("", True), ("invalid_request", False)],
)
async def test_a_refusal_that_may_be_cured_is_no_receipt(pair, err, sent_again):
    """RFC 8935 section 2.4: what is refused for a key or a credential is as good as not told."""
    transmitter = pair.transmitter()
    await transmitter.tell(event(RISK, current_level="HIGH"))
    pair.wire.status, pair.wire.answer = 400, json.dumps({"err": err}).encode()
    await transmitter.push(lambda *told: pair.heard.append(told))
    assert pair.heard
    pair.world.clock.now += 3
    await transmitter.push(lambda *told: pair.heard.append(told))
    assert len(pair.wire.pushed) == 1 + sent_again


async def test_a_poller_gets_what_waits_until_it_says_that_it_has_it(pair):
    transmitter = pair.transmitter(push_url="", push_token="", poll_token="secret", http=None)
    for number in range(3):
        await transmitter.tell(event(RISK, current_level="HIGH"), f"j{number}")
    assert await transmitter.polled("us", "wrong", {}) is None
    assert await transmitter.polled("them", "secret", {}) is None
    first = await transmitter.polled("us", "secret", {"maxEvents": 2})
    assert (sorted(first["sets"]), first["moreAvailable"]) == (["j0", "j1"], True)
    again = await transmitter.polled("us", "secret", {"maxEvents": 2})
    assert sorted(again["sets"]) == ["j0", "j1"], "nothing is gone before it is acknowledged"
    second = await transmitter.polled("us", "secret", {"ack": ["j0"], "setErrs": {"j1": {"err": "invalid_request"}}})
    assert (sorted(second["sets"]), second["moreAvailable"]) == (["j2"], False)
    for token in first["sets"].values():
        assert await pair.receiver.receive(token) == 1


async def test_a_poll_is_done_before_it_is_acknowledged(pair):
    login = await signed_in(pair.world)
    transmitter = pair.transmitter(push_url="", push_token="", poll_token="secret", http=None)
    await transmitter.tell(event(SESSION_REVOKED), "j1")
    asked = []

    class Poller(Wire):
        async def send_json(self, method, url, value, headers=None):
            asked.append(value)
            answer = await transmitter.polled("us", headers["authorization"].removeprefix("Bearer "), value)
            return HttpAnswer(200, {}, json.dumps(answer).encode())

    source = replace(pair.source, poll_url="https://other/poll", poll_token="secret", http=Poller(dict))
    world = pair.world
    receiver = SignalReceiver(source, world.logins, world.logins, world.store, world.documents, pair.news, world.clock)
    done, errors = [], {}
    assert await receiver.poll(done, errors) is True
    assert (await world.logins.live(login.id)).reason == "session_revoked"
    assert await receiver.poll(done, errors) is False
    assert [question["ack"] for question in asked] == [[], ["j1"]]
