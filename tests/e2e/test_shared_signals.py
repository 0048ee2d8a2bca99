"""Two gateways that follow each other's signals, a device manager that both hear of, and what a device says itself.

The near gateway pushes to the far one and polls it. Each has a store of its own; both know the same people.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from gateway.agent import posture_report as device_report
from gateway.agent.enroll import enrol
from gateway.demo.clients.http import Browser
from gateway.demo.idp.token_issuer import Key
from gateway.identity.devices.posture import signed_report
from tests.support.shared_signals_world import (
    FRESH_S,
    SUBJECTS,
    Manager,
    Pair,
    Place,
    until,
    verdict,
)

pytestmark = [pytest.mark.timeout(120), pytest.mark.xdist_group("shared-signals")]


@pytest.fixture(scope="module")
def whole() -> Iterator[Place]:
    with contextlib.ExitStack() as stack:
        manager = Manager()
        stack.callback(manager.close)
        pair = stack.enter_context(Pair(manager))
        pair.start()
        pair.start_far()
        device_id, token = pair.add_device("laptop", "alice")
        folder = pair.folder / "laptop"
        enrol(pair.near, token, folder, pair.pki.root)
        pair.known_at_both(device_id)
        yield Place(pair, device_id, folder)


@pytest.fixture
def place(whole: Place) -> Iterator[Place]:
    yield whole
    whole.open.close()


def test_a_session_that_ends_at_one_is_pushed_to_the_other_and_ends_there(place: Place) -> None:
    near, far = place.both()
    token = place.token("alice")
    assert [verdict(near, token), verdict(far, token)] == ["served", "served"]
    place.revoke("alice")
    assert verdict(near, token) == "session_revoked"
    until(lambda: verdict(far, token) == "session_revoked")
    assert verdict(far, place.token("alice")) == "served", "one session has ended, not the person's next one"


def test_a_session_that_was_never_used_at_the_other_is_ended_there_before_its_first_use(place: Place) -> None:
    near, far = place.both()
    token = place.token("alice")
    assert verdict(near, token) == "served"
    before = place.known("alice", "state-far")
    place.revoke("alice")
    until(lambda: place.known("alice", "state-far") > before)
    assert verdict(far, token) == "session_revoked"


def test_a_session_that_ends_at_the_other_is_polled_and_ends_here(place: Place) -> None:
    near, far = place.both()
    token = place.token("carol")
    assert [verdict(near, token), verdict(far, token)] == ["served", "served"]
    place.revoke("carol", "state-far")
    assert verdict(far, token) == "session_revoked"
    until(lambda: verdict(near, token) == "session_revoked")


def test_a_receiver_that_is_down_hears_everything_when_it_is_back(place: Place) -> None:
    near, far = place.both()
    tokens = {user: place.token(user) for user in ("bob", "fay")}
    for token in tokens.values():
        assert [verdict(near, token), verdict(far, token)] == ["served", "served"]
    place.pair.stop_far()
    for user in tokens:
        place.revoke(user)
    until(lambda: "shared_signals_failed" in (place.pair.logs / "gateway.log").read_text())
    place.pair.start_far()
    back = place.browser(place.pair.far_port)
    for token in tokens.values():
        until(lambda one=token: verdict(back, one) == "session_revoked")


def test_a_locked_person_is_out_at_both(place: Place) -> None:
    near, far = place.both()
    token = place.token("carol")
    assert [verdict(near, token), verdict(far, token)] == ["served", "served"]
    said = place.pair.operator("user", "lock", "dev", SUBJECTS["carol"], "--why", "stolen laptop")
    assert f"the account {SUBJECTS['carol']} is locked" in said
    assert verdict(near, token) in {"session_revoked", "token_inactive"}
    until(lambda: place.running("carol", "state-far") == 0)
    said = place.pair.operator("user", "unlock", "dev", SUBJECTS["carol"], "--why", "found it")
    assert "is unlocked" in said
    record = (place.pair.folder / "state/decisions.jsonl").read_text()
    lines = [json.loads(row) for row in record.splitlines() if '"operator"' in row]
    assert [(one["operator"], one["account"], one["why"]) for one in lines] == [
        ("user_lock", "locked", "stolen laptop"),
        ("user_unlock", "unlocked", "found it"),
    ]


def test_a_risk_that_another_system_sees_counts_here(place: Place) -> None:
    far, manager = place.browser(place.pair.far_port), place.pair.manager

    def level(now: str) -> str:
        return manager.token(
            place.pair.far, "risk-level-change", place.about("bob"), principal="USER", current_level=now
        )

    token = place.token("bob")
    assert verdict(far, token) == "served"
    assert place.push(level("HIGH")).status_code == 202
    until(lambda: verdict(far, token) != "served")
    assert verdict(far, token) in {"step_up_required", "risk_high", "mfa_required"}, verdict(far, token)
    time.sleep(1.1)  # of two events in one second nobody can say which came first
    assert place.push(level("LOW")).status_code == 202
    until(lambda: verdict(far, token) == "served")


def test_a_device_says_what_it_is_and_policy_sees_that_with_its_age(place: Place) -> None:
    near = place.browser(place.pair.port)
    token = place.token("alice")
    assert verdict(near, token, "/headers?posture=1") == "posture_needed"
    facts = device_report.collect()
    posture = device_report.send(place.folder, facts)
    assert {name: posture[name] for name in facts} == facts
    assert verdict(near, token, "/headers?posture=1") == "served"
    until(lambda: verdict(near, token, "/headers?posture=1") == "posture_needed", FRESH_S + 3)
    shown = json.loads(place.pair.operator("device", "show", place.device_id, "--json"))
    assert shown["posture"]["kernel"] == facts["kernel"]


def test_a_device_that_no_longer_complies_is_refused_by_policy(place: Place) -> None:
    far = place.browser(place.pair.far_port)
    token = place.token("alice")
    manager, audience = place.pair.manager, place.pair.far
    kind, about = "device-compliance-change", place.about_device()
    bad = manager.token(audience, kind, about, previous_status="compliant", current_status="not-compliant")
    assert place.push(bad).status_code == 202
    until(lambda: "device_not_compliant" in far.ask("/headers?posture=1", token).text)
    time.sleep(1.1)  # of two events in one second nobody can say which came first
    good = manager.token(audience, kind, about, previous_status="not-compliant", current_status="compliant")
    assert place.push(good).status_code == 202
    until(lambda: "device_not_compliant" not in far.ask("/headers?posture=1", token).text)


def test_a_device_does_not_undo_that_by_reporting_its_posture_at_the_same_moment(place: Place) -> None:
    manager, audience, about = place.pair.manager, place.pair.far, place.about_device()
    current = (place.folder / "current").resolve(strict=True)
    key = serialization.load_pem_private_key((current / "device.key").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    browsers = [place.browser(place.pair.far_port) for _ in range(4)]

    def report(browser: Browser) -> int:
        token = signed_report({"disk_encrypted": True}, key, secrets.token_urlsafe(16), time.time())
        headers = {"content-type": "application/jwt"}
        return browser.ask("/.gateway/posture", method="POST", headers=headers, content=token).status_code

    def event(before: str, after: str) -> str:
        return manager.token(audience, "device-compliance-change", about, previous_status=before, current_status=after)

    async def posture() -> Mapping[str, Any]:
        async with place.pair.store("state-far") as store:
            record = await store.device(place.device_id)
            assert record is not None
            return record.posture

    with ThreadPoolExecutor(5) as pool:
        for _ in range(12):
            assert place.push(event("not-compliant", "compliant")).status_code == 202
            reports = [pool.submit(report, browser) for browser in browsers]
            pushed = pool.submit(place.push, event("compliant", "not-compliant"))
            assert [one.result() for one in reports] == [200] * 4
            assert pushed.result().status_code == 202
            at_rest = asyncio.run(posture())
            assert (at_rest["compliant"], at_rest["disk_encrypted"]) == (False, True)
    assert place.push(event("not-compliant", "compliant")).status_code == 202


def test_what_is_wrong_with_a_token_is_said_and_nothing_is_done(place: Place) -> None:
    far = place.browser(place.pair.far_port)
    token = place.token("alice")
    assert verdict(far, token) == "served"
    manager, about = place.pair.manager, place.about("alice")
    wrong = {
        "invalid_key": manager.token(place.pair.far, "session-revoked", about, Key()),
        "invalid_audience": manager.token(place.pair.near, "session-revoked", about),
        "invalid_request": manager.token(place.pair.far, "session-revoked", {"format": "email"}),
    }
    for code, sent in wrong.items():
        answer = place.push(sent)
        assert (answer.status_code, answer.json()["err"]) == (400, code), answer.text
        assert answer.headers["content-type"].startswith("application/json")
    assert verdict(far, token) == "served"


def test_a_token_that_comes_twice_is_acknowledged_and_done_once(place: Place) -> None:
    far = place.browser(place.pair.far_port)
    token = place.token("alice")
    assert verdict(far, token) == "served"
    sent = place.pair.manager.token(place.pair.far, "session-revoked", place.about("alice"))
    assert place.push(sent).status_code == 202
    assert verdict(far, token) == "session_revoked"
    later = place.token("alice")
    assert verdict(far, later) == "served"
    assert place.push(sent).status_code == 202  # RFC 8935 section 2.2: one that was sent again is no error
    assert verdict(far, later) == "served"


def test_policy_sees_who_comes_through_the_companys_vpn(place: Place) -> None:
    near, far = place.both()
    token = place.token("alice")
    assert verdict(near, token, "/headers?vpn=1") == "vpn_required"
    assert verdict(far, token, "/headers?vpn=1") == "served", "its configuration calls this address the VPN's"
