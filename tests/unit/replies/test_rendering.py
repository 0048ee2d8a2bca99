"""What pages are drawn with, and what becomes of a page that cannot be drawn."""

from pathlib import Path
from typing import Any

import pytest

from gateway.core.reasons import REASONS
from gateway.core.request import Peer, RequestFacts
from gateway.replies import rendering
from gateway.replies.rendering import Branding
from gateway.replies.replies import deny
from tests.support.cost import cost

PAGE = RequestFacts(
    *("GET", "wiki.example", "/x", ("x",), "q=canary", (), (("sec-fetch-mode", "navigate"),), "h2", 0),
    Peer("192.0.2.7", 1),
    "192.0.2.7",
)
ACME = Branding("Acme", "help@acme.example", "https://gw.example/.gateway/me")


def text(*codes: Any) -> Any:
    return deny(PAGE, codes, "d1", branding=ACME).body.decode()


@pytest.mark.parametrize(
    ("contact", "link"),
    [
        ("help@acme.example", "mailto:help@acme.example"),
        ("https://help.acme.example/new", "https://help.acme.example/new"),
        ("http://help.acme.example", ""),
        ("javascript:alert(1)", ""),
        ("the help desk, room 4, help@acme.example", ""),
        ("a@b?bcc=c@d", ""),
        ("", ""),
    ],
)
def test_only_what_is_an_address_becomes_a_link(contact: Any, link: Any) -> None:
    assert Branding(contact=contact).contact_link == link


def test_a_denial_names_the_rule_what_is_missing_and_whom_to_ask() -> None:
    page = text("role_missing")
    for part in ("Acme", "role_missing", "A role that opens this", "mailto:help@acme.example?subject=Decision%20d1"):
        assert part in page


@pytest.mark.parametrize(
    ("code", "title", "links"),
    [
        ("login_required", "Please sign in", [""]),
        ("mfa_required", "This needs a second factor", ["", "factors"]),
        ("store_down", "This does not work right now", [""]),
        ("login_expired", "This sign-in did not work", []),
        ("device_required", "You cannot open this", []),
        ("session_stolen", "We ended this session", ["me"]),
        ("account_attacked", "We ended all of your sessions", ["me", "factors"]),
        ("account_locked", "Your account is locked", []),
    ],
)
def test_a_denial_leads_on_where_that_helps(code: Any, title: Any, links: Any) -> None:
    page = text(code)
    assert f"<h1>{title}</h1>" in page
    found = [part.partition('"')[0] for part in page.split('class="button')[1:]]
    assert len(found) == len(links)
    for link in links:
        assert f'href="{"https://gw.example/.gateway/" + link if link else ""}"' in page
    assert "canary" not in page


def test_what_is_code_in_a_sentence_is_shown_as_code() -> None:
    assert "<code>gateway device enroll</code>" in text("device_required")


def test_every_reason_that_a_text_is_written_for_is_one() -> None:
    words = rendering.strings()["deny"]
    assert set(words["missing"]) <= set(REASONS)
    assert set(words["more"]) <= set(REASONS)
    assert set(words["titles"]) - {"deny", "login", "missing", "trouble"} <= set(REASONS)


def test_a_page_that_cannot_be_drawn_is_plain_text(monkeypatch: Any) -> None:
    monkeypatch.setattr(rendering, "_TEMPLATES", Path("/nowhere"))
    rendering._environment.cache_clear()
    rendering._parts.cache_clear()
    rendering.strings.cache_clear()
    try:
        reply = deny(PAGE, ("role_missing",), "d1")
    finally:
        monkeypatch.undo()
        rendering._environment.cache_clear()
    headers = dict(reply.headers)
    assert (reply.status, headers["content-type"]) == (403, "text/plain; charset=utf-8")
    assert headers["x-content-type-options"] == "nosniff"
    assert b"role_missing" in reply.body
    assert b"d1" in reply.body


@pytest.mark.parametrize("at", [float("nan"), float("inf"), -1e18])
def test_a_strange_time_is_no_reason_to_fail(at: Any) -> None:
    reply = deny(PAGE, ("role_missing",), "d1", at=at)
    assert (reply.status, dict(reply.headers)["content-type"]) == (403, "text/plain; charset=utf-8")


def test_a_value_that_a_template_misses_is_no_page() -> None:
    assert rendering.render("deny", {"title": "x"}) is None
    assert rendering.render("nothing", {}) is None


def test_a_denial_costs_less_than_a_millisecond() -> None:
    deny(PAGE, ("role_missing",), "d1")
    assert cost(lambda: deny(PAGE, ("role_missing", "device_required"), "d1"), 10) < 100
