from __future__ import annotations

import copy
import json
from typing import Any

import cbor2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.core.factors import FactorOwner, FactorProven
from gateway.core.reasons import Refusal
from plugins.factors.webauthn import WebAuthn
from tests.support.webauthn_authenticator import BE, BS, UP, UV, Authenticator, b64, unb64

ADA = FactorOwner("https://id.example.com", "ada", "ada@example.com")
PLUGIN = WebAuthn("example.com", "Example", ["https://gw.example.com", "https://gw.example.com:8443"])
NOW = 1_800_000_000.0


def enrol(key: Authenticator, *states: Any, owner: FactorOwner = ADA, **changes: Any) -> Any:
    step = PLUGIN.enrol_begin(owner, states, NOW)
    return PLUGIN.enrol_finish(step.pending, states, key.create(step.show, **changes), NOW)


def prove(key: Authenticator, *states: Any, **changes: Any) -> Any:
    step = PLUGIN.challenge_begin(states, NOW)
    return PLUGIN.challenge_finish(step.pending, states, key.get(step.show, **changes), NOW)


@pytest.fixture
def key() -> Authenticator:
    return Authenticator()


@pytest.fixture
def state(key: Authenticator) -> Any:
    found = enrol(key)
    assert not isinstance(found, Refusal), found
    return json.loads(json.dumps(found))


def test_the_options_ask_for_a_verified_person_and_a_key_that_knows_them() -> None:
    options = PLUGIN.enrol_begin(ADA, [], NOW).show["publicKey"]
    assert options["rp"] == {"name": "Example", "id": "example.com"}
    assert options["user"]["id"] == b64(ADA.handle)
    assert b"ada" not in ADA.handle
    assert options["authenticatorSelection"] == {
        "residentKey": "preferred",
        "requireResidentKey": False,
        "userVerification": "required",
    }
    assert options["timeout"] == 300_000
    assert [item["alg"] for item in options["pubKeyCredParams"]] == [-7, -8, -257]
    assert len(unb64(options["challenge"])) == 32


def test_a_key_is_enrolled_and_proves_itself(key: Authenticator, state: Any) -> None:
    found = prove(key, state)
    assert found == FactorProven(0, {**state, "sign_count": 1}, ("user", "hwk"))
    assert PLUGIN.describe(state) == {"synced": False, "aaguid": "00000000-0000-0000-0000-000000000000"}


def test_the_right_one_of_several_keys_is_found(key: Authenticator, state: Any) -> None:
    second = Authenticator()
    other = enrol(second, state)
    assert prove(second, state, other).index == 1
    assert prove(key, state, other).index == 0


def test_a_passkey_that_is_synced_is_a_software_key(key: Authenticator) -> None:
    key.flags = UP | UV | BE | BS
    state = enrol(key)
    assert prove(key, state).amr == ("user", "swk")


def test_every_origin_of_ours_will_do(key: Authenticator, state: Any) -> None:
    key.origin = "https://gw.example.com:8443"
    assert isinstance(prove(key, state), FactorProven)


def test_the_options_exclude_what_is_enrolled_and_allow_nothing_else(key: Authenticator, state: Any) -> None:
    excluded = PLUGIN.enrol_begin(ADA, [state], NOW).show["publicKey"]["excludeCredentials"]
    allowed = PLUGIN.challenge_begin([state], NOW).show["publicKey"]["allowCredentials"]
    assert excluded == allowed == [{"id": b64(key.id), "type": "public-key", "transports": ["internal"]}]


def test_a_key_that_ignores_the_exclusion_is_refused(key: Authenticator, state: Any) -> None:
    step = PLUGIN.enrol_begin(ADA, [], NOW)
    assert PLUGIN.enrol_finish(step.pending, [state], key.create(step.show), NOW) == Refusal(
        "factor_invalid", "this key is enrolled already"
    )


@pytest.mark.parametrize("flags", [UV, UP, 0, UP | UV | BS], ids=["no presence", "no verification", "none", "BS"])
def test_a_person_who_is_not_present_and_verified_is_refused(key: Authenticator, state: Any, flags: int) -> None:
    key.flags = flags
    assert prove(key, state).reason == "factor_invalid"
    assert enrol(Authenticator(flags=flags)).reason == "factor_invalid"


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example.com",
        "https://gw.example.com.evil",
        "http://gw.example.com",
        "https://gw.example.com/",
        "https://GW.example.com",
        "https://gw.example.com:443",
        "",
        None,
        ["https://gw.example.com"],
    ],
)
def test_another_origin_is_refused(key: Authenticator, state: Any, origin: Any) -> None:
    key.origin = origin
    assert prove(key, state).reason == "factor_invalid"
    assert enrol(Authenticator(origin=origin)).reason == "factor_invalid"


@pytest.mark.parametrize(
    "said",
    [{"crossOrigin": True}, {"type": "webauthn.get2"}, {"type": None}, {"challenge": b64(bytes(32))}, {"challenge": 1}],
)
def test_client_data_that_says_something_else_is_refused(key: Authenticator, state: Any, said: dict[str, Any]) -> None:
    key.client = said
    assert prove(key, state).reason == "factor_invalid"
    assert enrol(Authenticator(client=said)).reason == "factor_invalid"


def test_an_enrolment_is_no_proof_and_a_proof_no_enrolment(key: Authenticator, state: Any) -> None:
    key.client = {"type": "webauthn.create"}
    assert prove(key, state).reason == "factor_invalid"
    assert enrol(Authenticator(client={"type": "webauthn.get"})).reason == "factor_invalid"


def test_another_relying_party_is_refused(key: Authenticator, state: Any) -> None:
    key.rp_id = "gw.example.com"
    assert prove(key, state).reason == "factor_invalid"
    assert enrol(Authenticator(rp_id="com")).reason == "factor_invalid"


def test_the_answer_to_another_challenge_is_refused(key: Authenticator, state: Any) -> None:
    first, second = PLUGIN.challenge_begin([state], NOW), PLUGIN.challenge_begin([state], NOW)
    assert PLUGIN.challenge_finish(second.pending, [state], key.get(first.show), NOW).reason == "factor_invalid"


def test_a_signature_of_something_else_or_of_another_key_is_refused(key: Authenticator, state: Any) -> None:
    assert prove(key, state, signed=lambda data: data + b".").reason == "factor_invalid"
    assert prove(Authenticator(id=key.id, user=key.user), state).reason == "factor_invalid"


def test_a_key_that_was_never_enrolled_is_refused(key: Authenticator, state: Any) -> None:
    stranger = Authenticator()
    step = PLUGIN.challenge_begin([state, enrol(stranger)], NOW)
    assert PLUGIN.challenge_finish(step.pending, [state], stranger.get(step.show), NOW).reason == "factor_invalid"


def test_a_key_that_names_another_person_is_refused(key: Authenticator, state: Any) -> None:
    key.user = FactorOwner(ADA.issuer, "bob").handle
    assert prove(key, state) == Refusal("factor_invalid", "a key of another person")


@pytest.mark.parametrize("count", [7, 6, 0])
def test_a_sign_count_that_does_not_grow_is_refused(key: Authenticator, state: Any, count: int) -> None:
    key.sign_count = 6
    used = prove(key, state).state
    assert used["sign_count"] == 7
    key.sign_count, key.counts = count, False
    assert prove(key, used).reason == "factor_replayed"


def test_a_key_that_never_counts_is_accepted(key: Authenticator, state: Any) -> None:
    key.counts = False
    assert isinstance(prove(key, prove(key, state).state), FactorProven)


def test_a_key_that_turns_into_a_synced_one_is_refused(key: Authenticator, state: Any) -> None:
    key.flags = UP | UV | BE
    assert prove(key, state).reason == "factor_invalid"


def test_an_attestation_is_not_taken(key: Authenticator) -> None:
    assert enrol(key, fmt="fido-u2f").detail == "an attestation that was not asked for"
    assert enrol(key, fmt="tpm").detail == "an attestation that was not asked for"
    assert enrol(key, fmt="none", statement={"sig": b"x"}).reason == "factor_invalid"
    assert enrol(key, fmt="packed", statement={"alg": -7, "sig": b"x"}).reason == "factor_invalid"
    assert enrol(key, fmt="packed", statement={"alg": -7, "sig": b"x", "x5c": [b"x"]}).reason == "factor_invalid"


@pytest.mark.parametrize(
    "change",
    [
        lambda key: key | {3: -8},
        lambda key: key | {3: -36},
        lambda key: key | {-2: bytes(32)},
        lambda key: key | {-1: 99},
        lambda key: key | {-2: "text"},
        lambda key: {1: 3, 3: -257, -1: b"\xff" * 2_000, -2: b"\x01\x00\x01"},
        lambda key: {1: 3, 3: -257, -1: b"", -2: b""},
        lambda key: {1: 1, 3: -8, -1: 6, -2: b"short"},
        lambda key: {1: 1, 3: -8, -1: 7, -2: bytes(57)},
        lambda key: {},
        lambda key: [],
        lambda key: 7,
        lambda key: None,
    ],
)
def test_a_public_key_that_is_none_is_refused(key: Authenticator, change: Any) -> None:
    assert enrol(key, cose=change).reason == "factor_invalid"


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"id": 1},
        {"id": "x", "rawId": "x", "type": "public-key", "response": {}},
        {"id": {}, "response": []},
        {"x": "y" * 70_000},
        {"x": object()},
        {"id": "\ud800"},
    ],
)
def test_garbage_is_refused(state: Any, answer: Any) -> None:
    step = PLUGIN.enrol_begin(ADA, [], NOW)
    assert PLUGIN.enrol_finish(step.pending, [], answer, NOW).reason == "factor_invalid"
    step = PLUGIN.challenge_begin([state], NOW)
    for known in ({}, {"id": state["id"]}):
        assert PLUGIN.challenge_finish(step.pending, [state], answer | known, NOW).reason == "factor_invalid"


_KEY = Authenticator()
_CREATE = PLUGIN.enrol_begin(ADA, [], NOW)
_CREATED = _KEY.create(_CREATE.show)
_STATE = PLUGIN.enrol_finish(_CREATE.pending, [], _CREATED, NOW)
_GET = PLUGIN.challenge_begin([_STATE], NOW)
_GOT = _KEY.get(_GET.show)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary().map(b64),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)


@st.composite
def spoilt(draw: Any, good: dict[str, Any]) -> dict[str, Any]:
    """A good answer with one place changed: a member, or some bytes of one."""
    answer = copy.deepcopy(good)
    holder = draw(st.sampled_from([answer, answer["response"]]))
    name = draw(st.sampled_from(sorted(holder)))
    if isinstance(holder[name], str) and draw(st.booleans()):
        raw = bytearray(unb64(holder[name]) if name != "type" else holder[name].encode())
        at = draw(st.integers(0, max(0, len(raw) - 1)))
        raw[at : at + draw(st.integers(0, 4))] = draw(st.binary(max_size=4))
        holder[name] = b64(bytes(raw))
    else:
        holder[name] = draw(JSON)
    return answer


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(spoilt(_CREATED))
def test_a_spoilt_enrolment_is_an_answer_and_never_an_error(answer: dict[str, Any]) -> None:
    found = PLUGIN.enrol_finish(_CREATE.pending, [], answer, NOW)
    if isinstance(found, Refusal):
        assert found.reason == "factor_invalid"
    else:
        assert found["user"] == b64(ADA.handle)


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(spoilt(_GOT))
def test_a_spoilt_proof_is_an_answer_and_never_an_error(answer: dict[str, Any]) -> None:
    found = PLUGIN.challenge_finish(_GET.pending, [_STATE], answer, NOW)
    if isinstance(found, Refusal):
        assert found.reason == "factor_invalid"
    else:  # what is not signed may differ, as may the spelling of base64
        assert unb64(answer["response"]["authenticatorData"]) == unb64(_GOT["response"]["authenticatorData"])
        assert unb64(answer["response"]["clientDataJSON"]) == unb64(_GOT["response"]["clientDataJSON"])


@pytest.mark.parametrize("data", [25_000_000_000_000, [1, 2], "x" * 40, None])
def test_authenticator_data_that_are_no_bytes_cost_nothing(data: object) -> None:
    good = cbor2.loads(unb64(_CREATED["response"]["attestationObject"]))
    answer = copy.deepcopy(_CREATED)
    answer["response"]["attestationObject"] = b64(cbor2.dumps(good | {"authData": data}))
    found = PLUGIN.enrol_finish(_CREATE.pending, [], answer, NOW)
    assert isinstance(found, Refusal)
    assert found.detail == "authenticator data that are no bytes"


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_a_strange_attestation_object_is_an_answer_and_never_an_error(data: Any) -> None:
    good = cbor2.loads(unb64(_CREATED["response"]["attestationObject"]))
    strange = st.recursive(
        st.none() | st.integers() | st.binary(max_size=80) | st.text(max_size=9) | st.just(good["authData"]),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(sorted(good)) | st.text(), inner),
        max_leaves=6,
    )
    good["fmt"] = data.draw(st.sampled_from(["none", "packed"]) | strange)
    good["attStmt"] = data.draw(
        strange | st.fixed_dictionaries({"alg": st.integers(-300, 1), "sig": st.binary() | strange, "x5c": strange})
    )
    raw = bytearray(good["authData"])
    at = data.draw(st.integers(0, len(raw)))
    raw[at : at + data.draw(st.integers(0, 90))] = data.draw(st.binary(max_size=40))
    good["authData"] = data.draw(st.just(bytes(raw)) | strange)
    answer = copy.deepcopy(_CREATED)
    answer["response"]["attestationObject"] = b64(cbor2.dumps(data.draw(st.just(good) | strange)))
    found = PLUGIN.enrol_finish(_CREATE.pending, [], answer, NOW)
    assert not isinstance(found, Refusal) or found.reason == "factor_invalid"


@pytest.mark.parametrize(
    ("rp_id", "origins"),
    [
        ("com", ["https://gw.example.com"]),
        ("", ["https://gw.example.com"]),
        ("example.com.", ["https://gw.example.com."]),
        ("Example.com", ["https://gw.example.com"]),
        ("example.com", []),
        ("example.com", "https://example.com"),
        ("example.com", ["https://gw.example.org"]),
        ("example.com", ["https://notexample.com"]),
        ("example.com", ["http://gw.example.com"]),
        ("example.com", ["https://gw.example.com/"]),
        ("example.com", ["https://ann@gw.example.com"]),
        ("example.com", ["https://gw.example.com", None]),
        (None, ["https://gw.example.com"]),
    ],
)
def test_settings_that_no_browser_would_accept_are_refused(rp_id: Any, origins: Any) -> None:
    with pytest.raises(ValueError, match="webauthn: "):
        WebAuthn(rp_id, "Example", origins)


def test_localhost_may_do_without_tls() -> None:
    WebAuthn("localhost", "Example", ["http://localhost:8080", "https://localhost"])
