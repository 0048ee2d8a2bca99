import hashlib
import json
import re
from base64 import b64encode
from html.parser import HTMLParser
from typing import Any
from urllib.parse import unquote

import pytest

from gateway.core.reasons import REASONS, Reason
from gateway.core.request import Peer, RequestFacts
from gateway.replies.replies import deny, redirect


def facts(**changes: Any) -> Any:
    values = {
        "method": "GET",
        "host": "staff.example",
        "path": "/x",
        "segments": ("x",),
        "query": "q=canary-query",
        "query_fields": (("q", "canary-query"),),
        "headers": (("authorization", "Bearer canary-token"),),
        "protocol": "h2",
        "content_length": 0,
        "peer": Peer("192.0.2.7", 1),
        "client_ip": "192.0.2.7",
    }
    return RequestFacts(**{**values, **changes})


PAGE = facts(headers=(("sec-fetch-mode", "navigate"), ("cookie", "canary-cookie")))
GRPC = facts(method="POST", protocol="grpc")


class Outline(HTMLParser):
    """The tags, attributes and text of a page."""

    def __init__(self, text: Any) -> None:
        super().__init__()
        self.tags: list[Any] = []
        self.open: list[str] = []
        self.words = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: Any, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: Any) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: Any) -> None:
        if "style" not in self.open:
            self.words += data


def test_a_program_gets_a_problem_document() -> None:
    reply = deny(facts(), ("device_revoked", "role_missing"), "d1")
    headers = dict(reply.headers)
    assert (reply.status, reply.reason) == (403, "device_revoked")
    assert headers == {
        "cache-control": "no-store",
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "x-gateway-decision": "d1",
        "x-gateway-reason": "device_revoked",
        "content-type": "application/problem+json",
    }
    assert json.loads(reply.body) == {
        "type": "urn:gateway:v1:reason:device_revoked",
        "title": "Forbidden",
        "status": 403,
        "detail": f"{REASONS['device_revoked'].what} {REASONS['device_revoked'].fix}",
        "reason": "device_revoked",
        "reasons": ["device_revoked", "role_missing"],
        "decision": "d1",
    }


def test_a_person_gets_a_page_that_says_what_why_and_what_now() -> None:
    reply = deny(PAGE, ("department_mismatch", "read_only"), "d1", at=1_700_000_000)
    page = Outline(reply.body.decode())
    assert reply.status == 403
    assert dict(reply.headers)["content-type"] == "text/html; charset=utf-8"
    words = " ".join(page.words.split())
    for part in (
        "You cannot open this",
        REASONS["department_mismatch"].what,
        REASONS["read_only"].what,
        "Ask the owner of the service for access.",
        "staff.example",
        "d1",
        "2023-11-14 22:13:20 UTC",
    ):
        assert part in words
    assert words.count("Ask the owner") == 1


def test_a_page_is_accessible_and_fetches_and_runs_nothing() -> None:
    reply = deny(PAGE, ("login_required",), "d1")
    page = Outline(reply.body.decode())
    names = [tag for tag, _ in page.tags]
    assert page.open == []
    assert ("html", {"lang": "en"}) in page.tags
    assert names.count("main") == names.count("h1") == names.count("title") == 1
    assert not {"script", "img", "link", "iframe", "form", "a"} & set(names)
    attributes = {name for _, attrs in page.tags for name in attrs}
    assert not {"style", "src", "href"} & attributes
    assert not [name for name in attributes if name.startswith("on")]
    assert b"url(" not in reply.body
    assert b"@import" not in reply.body


def test_the_pages_policy_allows_its_own_style_alone() -> None:
    reply = deny(PAGE, ("login_required",), "d1")
    [style] = re.findall(rb"<style>(.*?)</style>", reply.body, re.DOTALL)
    digest = b64encode(hashlib.sha256(style).digest()).decode()
    policy = dict(reply.headers)["content-security-policy"]
    assert policy.split("; ")[:2] == ["default-src 'none'", f"style-src 'sha256-{digest}'"]
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy


def luminance(colour: Any) -> Any:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_text_has_enough_contrast_in_light_and_dark() -> None:
    page = deny(PAGE, ("login_required",), "d1").body.decode()
    for colours in re.findall(r":root \{[^}]*?(--page[^}]*)\}", page):
        value = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", colours))
        for text in ("text", "soft"):
            for ground in ("page", "card", "tint"):
                light, dark = sorted((luminance(value[text]), luminance(value[ground])), reverse=True)
                assert (light + 0.05) / (dark + 0.05) >= 4.5


@pytest.mark.parametrize(
    ("code", "title"),
    [
        ("login_required", "Please sign in"),
        ("upstream_timeout", "This does not work right now"),
        ("route_not_found", "There is nothing here"),
        ("device_required", "You cannot open this"),
    ],
)
def test_the_title_tells_sign_in_trouble_nothing_and_no_apart(code: Any, title: Any) -> None:
    assert f"<h1>{title}</h1>" in deny(PAGE, (code,), "d").body.decode()


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("token_expired", "16"),
        ("role_missing", "7"),
        ("route_not_found", "5"),
        ("upstream_unreachable", "14"),
        ("node_quarantined", "14"),
        ("gateway_error", "13"),
        ("malformed_request", "13"),
        ("body_too_large", "8"),
    ],
)
def test_a_grpc_client_gets_trailers_only(code: Any, status: Any) -> None:
    reply = deny(GRPC, (code,), "d1")
    headers = dict(reply.headers)
    assert (reply.status, reply.body, reply.reason) == (200, b"", code)
    assert (headers["content-type"], headers["grpc-status"]) == ("application/grpc", status)
    assert headers["x-gateway-reason"] == code
    assert unquote(headers["grpc-message"]) == f"{code}: {REASONS[code].what}"


def test_a_401_always_has_a_challenge_and_a_403_only_a_given_one() -> None:
    def challenge(code: Any, **given: Any) -> Any:
        return dict(deny(facts(), (code,), "d", **given).headers).get("www-authenticate")

    assert challenge("token_expired") == "Bearer"
    assert challenge("token_expired", challenge='Bearer error="invalid_token"') == 'Bearer error="invalid_token"'
    assert challenge("role_missing") is None
    assert challenge("role_missing", challenge='Bearer error="insufficient_scope"') is not None
    assert challenge("token_expired", challenge="Bearer\r\nset-cookie: a=b") == "Bearer"


def test_the_first_reason_that_refuses_gives_the_status() -> None:
    reply = deny(facts(), ("device_ok", "token_ok", "mfa_required"), "d")
    assert (reply.status, reply.reason) == (401, "mfa_required")
    assert json.loads(reply.body)["reasons"] == ["device_ok", "token_ok", "mfa_required"]


@pytest.mark.parametrize("codes", [(), ("policy_ok",), ("Not A Code",), ("",)])
def test_a_denial_without_a_reason_to_refuse_is_still_a_denial(codes: Any) -> None:
    reply = deny(facts(), codes, "d")
    assert (reply.status, reply.reason) == (403, "default_deny")


def test_a_policys_own_code_is_shown_with_a_general_text() -> None:
    reply = deny(PAGE, ("sales_freeze",), "d")
    assert (reply.status, reply.reason) == (403, "sales_freeze")
    assert b"sales_freeze" in reply.body


def test_an_unreadable_request_gets_a_problem_document() -> None:
    reply = deny(None, ("malformed_request",), "d")
    assert reply.status == 400
    assert json.loads(reply.body)["reason"] == "malformed_request"


def test_a_head_request_gets_no_body() -> None:
    assert deny(facts(method="HEAD"), ("role_missing",), "d").body == b""
    assert deny(facts(method="HEAD", headers=(("accept", "text/html"),)), ("role_missing",), "d").body == b""


@pytest.mark.parametrize("code", REASONS)
def test_every_reason_makes_every_kind_of_reply_and_none_repeats_the_request(code: Any) -> None:
    for asked in (facts(), PAGE, GRPC, None):
        reply = deny(asked, (code,), "d1")
        text = repr(reply)
        assert "canary" not in text
        assert "192.0.2.7" not in text
        names = [name for name, _ in reply.headers]
        assert len(names) == len(set(names))
        assert all(name == name.lower() and value.isprintable() and value.isascii() for name, value in reply.headers)
        assert dict(reply.headers)["cache-control"] == "no-store"
        assert "content-length" not in names
        if REASONS[code].status in {429, 503}:
            assert "retry-after" in names


def test_a_hostile_host_or_decision_id_is_text_and_not_markup() -> None:
    page = facts(host="<script>x</script>", headers=(("sec-fetch-mode", "navigate"),))
    reply = deny(page, ("role_missing",), "<b>\r\n")
    assert b"<script>" not in reply.body
    assert b"<b>" not in reply.body
    assert dict(reply.headers)["x-gateway-decision"] == "-"


def test_a_redirect_is_not_stored_and_may_set_cookies() -> None:
    reply = redirect("https://id.example/authorize?x=1", "login_required", "d1", ["__Host-a=b; Secure"])
    headers = dict(reply.headers)
    assert (reply.status, reply.body, reply.reason) == (302, b"", "login_required")
    assert headers["location"] == "https://id.example/authorize?x=1"
    assert headers["set-cookie"] == "__Host-a=b; Secure"
    assert headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "location", ["//evil.example", "/\\evil.example", "javascript:x", "", "https://a\r\nb: c", "https://\u00e9"]
)
def test_a_redirect_to_a_doubtful_address_raises(location: Any) -> None:
    with pytest.raises(ValueError, match=r"address|ASCII"):
        redirect(location, "login_required", "d")


HOSTILE = '</strong><script>alert(1)</script><img src=x onerror=alert(1)> {{ 7*7 }} {% raw %} &lt;b&gt; "quoted"'


def test_the_policies_own_words_stand_on_the_page_as_text() -> None:
    texts = {"weekend_closed": Reason("weekend_closed", 403, f"Closed. {HOSTILE}", f"Come back. {HOSTILE}")}
    page = deny(PAGE, ("weekend_closed",), "d1", texts=texts).body.decode()
    plain = deny(PAGE, ("weekend_closed",), "d1").body.decode()
    outline = Outline(page)
    assert [tag for tag, _ in outline.tags] == [tag for tag, _ in Outline(plain).tags]
    assert f"Closed. {HOSTILE}" in outline.words
    assert f"Come back. {HOSTILE}" in outline.words


def test_the_policies_own_words_stand_in_json_and_grpc_and_change_no_header_else() -> None:
    texts = {"weekend_closed": Reason("weekend_closed", 403, "Closed.\r\nset-cookie: x=1", "Come back.")}
    reply = deny(facts(), ("weekend_closed",), "d1", texts=texts)
    assert json.loads(reply.body)["detail"] == "Closed.\r\nset-cookie: x=1 Come back."
    called = dict(deny(GRPC, ("weekend_closed",), "d1", texts=texts).headers)
    assert called["grpc-message"] == "weekend_closed: Closed.%0D%0Aset-cookie: x=1"
    assert set(dict(reply.headers)) == set(dict(deny(facts(), ("weekend_closed",), "d1").headers))
