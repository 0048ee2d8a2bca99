"""Every page with every variation of its model."""

import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from gateway.core.reasons import REASONS
from gateway.core.request import Peer, RequestFacts
from gateway.endpoints.pages import Pages
from gateway.replies.rendering import Branding

NOW = 1_795_000_000.0
HOSTILE = """<script>alert("1")</script>'"><img src=x onerror=y>{{ 7*7 }}"""
ERRORS = [
    "factor_invalid",
    "factor_replayed",
    "factor_locked",
    "factor_expired",
    "factor_unknown",
    "factor_insufficient",
    "factor_proof_missing",
    "factor_limit",
    "factor_closed",
    "a_code_of_a_plugin",
]
CHROME = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/150.0.0.0 Safari/537.36"
QR = '<svg width="180" height="180"><path stroke="#000" d="M4 4.5h7"/></svg>'
PUBLIC_KEY = {"publicKey": {"challenge": "abc", "user": {"name": HOSTILE}}}
VOID = {"meta", "input", "img", "br", "hr", "link", "path", "circle", "rect"}
PAGES = Pages(issuers=["https://id.example/realm", "http://127.0.0.1:8080"], clock=lambda: NOW)


def facts(method: Any = "GET") -> Any:
    headers = (("sec-fetch-mode", "navigate"),)
    return RequestFacts(
        method, "gw.example", "/.gateway/me", (), "", (), headers, "h2", 0, Peer("192.0.2.7", 1), "192.0.2.7"
    )


class Seen(HTMLParser):
    """The tags of a page, its forms with their fields, its words; every tag is closed in its turn."""

    def __init__(self, text: Any) -> None:
        super().__init__()
        self.tags: list[Any] = []
        self.open: list[str] = []
        self.forms: list[dict[str, Any]] = []
        self.words = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: Any, attrs: Any) -> None:
        named = dict(attrs)
        self.tags.append((tag, named))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "form":
            self.forms.append({"to": named["action"], "method": named["method"]})
        elif tag == "input" and "form" in self.open:
            self.forms[-1][named["name"]] = named.get("value")

    def handle_startendtag(self, tag: Any, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: Any) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: Any) -> None:
        if not {"style", "script"} & set(self.open):
            self.words += data

    def named(self, tag: Any) -> Any:
        return [attrs for name, attrs in self.tags if name == tag]


def draw(name: Any, model: Any, **how: Any) -> Any:
    reply = PAGES(name, facts(), model, **how)
    assert dict(reply.headers)["content-type"].startswith("text/html"), reply.body
    return reply, Seen(reply.body.decode())


def session(**changes: Any) -> Any:
    return {
        "id": "s1",
        "current": False,
        "created_at": NOW - 7_300,
        "last_seen_at": NOW - 5,
        "ends_at": NOW + 86_400 * 2,
        "device_id": "laptop",
        "device": "Ada's laptop",
        "browser": CHROME,
        **changes,
    }


def me(**changes: Any) -> Any:
    sessions = [session(id="s2"), session(current=True)]
    return {"name": "Ada", "email": "ada@example.com", "sessions": sessions, "csrf": "token", **changes}


def question(kind: Any, show: Any = None) -> Any:
    return {"kind": kind, "step": "step-1", "expires_at": NOW + 300, "show": show or {}}


SHOWS = {"webauthn": PUBLIC_KEY, "totp": {}, "recovery": {}, "sms": {}}


def step_up(**changes: Any) -> Any:
    return {
        "name": "Ada",
        "email": "ada@example.com",
        "host": "wiki.example.com",
        "why": ["mfa_required", "own_rule"],
        "methods": ["otp", "user"],
        "max_age_s": 900,
        "factors": [
            {
                "kind": "webauthn",
                "labels": ["Blue key", ""],
                "href": "/.gateway/step-up?held=h&kind=webauthn",
                "chosen": True,
            },
            {"kind": "totp", "labels": [""], "href": "/.gateway/step-up?held=h&kind=totp", "chosen": False},
        ],
        "challenge": question("webauthn", PUBLIC_KEY),
        "must_enrol": False,
        "enrol_href": "/.gateway/factors?held=h",
        "enrol_kinds": ["webauthn", "totp", "sms"],
        "csrf": "token",
        "held": "h",
        "action": "/.gateway/step-up",
        "error": None,
        **changes,
    }


def factors(**changes: Any) -> Any:
    def mine(kind: Any, **more: Any) -> Any:
        values = {"id": kind, "kind": kind, "label": "", "created_at": NOW - 90, "used_at": None, "about": {}}
        return {**values, **more}

    return {
        "name": "Ada",
        "email": "",
        "factors": [
            mine("totp", label="phone", used_at=NOW - 3_600),
            mine("webauthn", about={"synced": True, "transports": []}),
            mine("recovery", about={"left": 7}),
            mine("sms"),
        ],
        "addable": [{"kind": "webauthn", "replaces": False}, {"kind": "totp", "replaces": True}],
        "needs_proof": False,
        "provable": ["webauthn", "totp"],
        "challenge": None,
        "enrolment": None,
        "csrf": "token",
        "held": "",
        "action": "/.gateway/factors",
        "back": "/.gateway/me",
        "error": None,
        **changes,
    }


CODES = [f"abcd-efgh-jkmn-{n:04}" for n in range(10)]
ENROLMENTS = {
    "totp": question("totp", {"secret": "ABCDEFGHIJKLMNOP", "uri": "otpauth://totp/x", "qr_svg": QR}),
    "totp again": {**question("totp"), "expires_at": None},
    "webauthn": question("webauthn", PUBLIC_KEY),
    "recovery": question("recovery", {"codes": CODES}),
    "sms": question("sms", {"to": "+1"}),
}
EVERY = {
    "choose": ("choose", {"ways": [{"issuer": "https://id.example/realm", "href": "/.gateway/login?held=h&issuer=a"}]}),
    "choose nothing": ("choose", {"ways": []}),
    "signed_out": ("signed_out", {}),
    "me": ("me", me()),
    "me alone": ("me", me(sessions=[session(current=True, device_id="", browser="")])),
    "step_up": ("step_up", step_up()),
    "step_up enrol": ("step_up", step_up(must_enrol=True, challenge=None, factors=[])),
    "step_up locked": ("step_up", step_up(challenge=None, error="factor_locked")),
    "factors": ("factors", factors()),
    "factors none": ("factors", factors(factors=[])),
    "factors held": ("factors", factors(held="h", back="/.gateway/step-up?held=h")),
    "factors unproven": ("factors", factors(needs_proof=True)),
    "factors full": ("factors", factors(addable=[])),
    **{f"step_up {kind}": ("step_up", step_up(challenge=question(kind, show))) for kind, show in SHOWS.items()},
    **{f"factors prove {kind}": ("factors", factors(challenge=question(kind, show))) for kind, show in SHOWS.items()},
    **{f"factors add {kind}": ("factors", factors(enrolment=begun)) for kind, begun in ENROLMENTS.items()},
    **{f"step_up {code}": ("step_up", step_up(error=code)) for code in ERRORS},
    **{f"factors {code}": ("factors", factors(error=code)) for code in ERRORS},
}


@pytest.mark.parametrize("case", EVERY)
def test_every_page_is_whole_accessible_and_loads_nothing_from_elsewhere(case: Any) -> None:
    reply, seen = draw(*EVERY[case])
    headers, names = dict(reply.headers), [tag for tag, _ in seen.tags]
    for only in ("title", "h1", "main", "style"):
        assert names.count(only) == 1, only
    assert seen.named("html") == [{"lang": "en"}]
    attributes = {name for _, attrs in seen.tags for name in attrs}
    assert not [name for name in attributes if name.startswith("on") or name == "style"]
    assert "built-in method" not in seen.words
    assert "Undefined" not in seen.words
    ids = [attrs["id"] for _, attrs in seen.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    for _, attrs in seen.tags:
        for reference in ("aria-labelledby", "aria-describedby", "for"):
            assert attrs.get(reference, ids and ids[0]) in [*ids, [], None], reference
        for link in ("href", "src", "action"):
            assert attrs.get(link, "/").startswith("/"), attrs
            assert not attrs.get(link, "/").startswith("//"), attrs
    labelled = {attrs["for"] for attrs in seen.named("label")}
    assert all(attrs.get("type") == "hidden" or attrs["id"] in labelled for attrs in seen.named("input"))
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == policy["base-uri"] == policy["frame-ancestors"] == "'none'"
    assert re.fullmatch(r"'sha256-[A-Za-z0-9+/=]{44}'", policy["style-src"])
    assert ("script-src" in policy) == bool(seen.named("script"))
    assert policy.get("script-src", "'self'") == "'self'"
    assert "unsafe" not in headers["content-security-policy"]
    assert (policy["form-action"] == "'none'") == (seen.forms == [] and EVERY[case][0] in {"choose", "signed_out"})
    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"
    assert all(form["method"] == "post" and form["csrf"] == "token" for form in seen.forms)


def poisoned(value: Any) -> Any:
    """The model with every free text in it hostile."""
    kept = {"kind", "csrf", "held", "action", "href", "enrol_href", "back", "step", "error", "qr_svg", "issuer"}
    if isinstance(value, dict):
        return {key: item if key in kept else poisoned(item) for key, item in value.items()}
    if isinstance(value, list):
        return [poisoned(item) for item in value]
    return HOSTILE if isinstance(value, str) else value


@pytest.mark.parametrize("case", EVERY)
def test_hostile_texts_are_text(case: Any) -> None:
    name, model = EVERY[case]
    _, clean = draw(name, model)
    reply, seen = draw(name, poisoned(model))
    assert b"<script>" not in reply.body
    assert {tag for tag, _ in seen.tags} - {tag for tag, _ in clean.tags} <= {"small", "rect", "code"}
    known = {key for _, attrs in clean.tags for key in attrs}
    assert {key for _, attrs in seen.tags for key in attrs} - known <= {"x", "y", "width", "height", "rx"}
    assert len(seen.named("script")) == len(clean.named("script"))
    if model:
        assert HOSTILE in seen.words or not any(name in model for name in ("name", "host"))


@pytest.mark.parametrize("page", ["step_up", "factors"])
@pytest.mark.parametrize("code", ERRORS)
def test_an_error_is_read_out_with_what_to_do(page: Any, code: Any) -> None:
    model = {"step_up": step_up, "factors": factors}[page](error=code, challenge=question("totp"))
    reply, seen = draw(page, model, status=403, code=code)
    assert (reply.status, reply.reason, dict(reply.headers)["x-gateway-reason"]) == (403, code, code)
    [alert] = [attrs for _, attrs in seen.tags if attrs.get("role") == "alert"]
    assert alert["id"] == "error"
    if code in REASONS:
        assert REASONS[code].what in seen.words
        assert REASONS[code].fix in seen.words
    [field] = [attrs for attrs in seen.named("input") if attrs["name"] == "code"]
    assert field["aria-describedby"] == "error"
    assert "Error: " in seen.words.split("\n", 12)[0] + seen.words[:200]


def test_a_step_up_is_answered_in_one_field() -> None:
    for kind, show in SHOWS.items():
        _, seen = draw("step_up", step_up(challenge=question(kind, show)))
        [form] = seen.forms
        fields = {"csrf": "token", "held": "h", "kind": kind, "step": "step-1"}
        assert {name: form[name] for name in fields} == fields
        assert form["to"] == "/.gateway/step-up"
        assert ("code" in form) == (kind != "webauthn")
        assert not {"answer", "saved"} & form.keys(), "the script adds the answer of a passkey"


def test_the_options_of_a_passkey_reach_the_script_as_they_are() -> None:
    for page, model in (
        ("step_up", step_up()),
        ("factors", factors(enrolment=ENROLMENTS["webauthn"])),
        ("factors", factors(challenge=question("webauthn", PUBLIC_KEY))),
    ):
        _, seen = draw(page, model)
        [form] = [attrs for attrs in seen.named("form") if "data-key" in attrs]
        assert json.loads(form["data-options"]) == PUBLIC_KEY["publicKey"]
        assert form["data-key"] == ("create" if model.get("enrolment") else "get")
        assert [attrs for attrs in seen.named("button") if "data-start" in attrs and "disabled" in attrs]


def test_whoever_must_enrol_is_led_there() -> None:
    _, seen = draw("step_up", step_up(must_enrol=True, challenge=None, factors=[]))
    assert seen.forms == []
    assert "/.gateway/factors?held=h" in [attrs.get("href") for attrs in seen.named("a")]


@pytest.mark.parametrize(
    ("kind", "field"),
    [("totp", "code"), ("totp again", "code"), ("recovery", "saved"), ("sms", "code"), ("webauthn", "")],
)
def test_an_enrolment_is_finished_in_one_field(kind: Any, field: Any) -> None:
    _, seen = draw("factors", factors(held="h", enrolment=ENROLMENTS[kind]))
    form = next(form for form in seen.forms if form["action"] == "finish")
    fields = {"csrf": "token", "held": "h", "kind": kind.split()[0], "step": "step-1", "to": "/.gateway/factors"}
    assert {name: form[name] for name in fields} == fields
    assert {"answer", "code", "saved"} & form.keys() == ({field} if field else set())
    assert form.get("saved", "true") == "true"
    if kind == "totp":
        assert "ABCD EFGH IJKL MNOP" in seen.words
        assert [attrs["aria-label"] for _, attrs in seen.tags if attrs.get("role") == "img"]
    if kind == "totp again":
        assert [form["kind"] for form in seen.forms if form["action"] == "begin"] == ["totp"]
    if kind == "recovery":
        assert all(code in seen.words for code in CODES)


def test_one_thing_at_a_time_may_be_done_to_factors() -> None:
    def actions(**changes: Any) -> Any:
        return [form["action"] for form in draw("factors", factors(**changes))[1].forms]

    assert actions() == ["remove"] * 4 + ["begin"] * 2
    assert actions(needs_proof=True) == ["ask"] * 2
    assert actions(needs_proof=True, challenge=question("totp")) == ["prove"]
    assert actions(enrolment=ENROLMENTS["recovery"]) == ["finish"]


def test_sessions_can_be_ended_but_this_one_is_signed_out() -> None:
    _, seen = draw("me", me())
    assert seen.forms == [
        {"to": "/.gateway/me", "method": "post", "csrf": "token", "action": "end", "id": "s2"},
        {"to": "/.gateway/logout", "method": "post", "csrf": "token"},
        {"to": "/.gateway/me", "method": "post", "csrf": "token", "action": "end_others"},
    ]
    words = " ".join(seen.words.split())
    for text in ("Chrome on Linux", "This browser", "just now", "2 hours ago", "in 2 days", "laptop"):
        assert text in words
    assert words.index("This browser") < words.index("2 days"), "this one stands first"
    assert len(draw("me", me(sessions=[session(current=True)]))[1].forms) == 1


def test_forms_lead_to_the_issuers_and_where_a_request_waits_to_its_service() -> None:
    def leads(name: Any, model: Any) -> Any:
        policy = dict(draw(name, model)[0].headers)["content-security-policy"]
        directive = re.search(r"form-action ([^;]+)", policy)
        assert directive is not None
        return directive[1]

    assert leads("me", me()) == "'self' https://id.example http://127.0.0.1:8080"
    assert leads("factors", factors()) == "'self' https://id.example http://127.0.0.1:8080"
    for name, model in (("factors", factors(held="h")), ("step_up", step_up())):
        assert leads(name, model) == "'self' https: https://id.example http://127.0.0.1:8080"


def test_spans_are_said_in_their_largest_unit() -> None:
    for seconds, text in (
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "1 minute"),
        (900, "15 minutes"),
        (43_200, "12 hours"),
        (3_599, "1 hour"),
        (86_400, "1 day"),
    ):
        assert f"It counts for {text}." in draw("step_up", step_up(max_age_s=seconds))[1].words


def test_the_company_is_on_every_page() -> None:
    pages = Pages(branding=Branding("Acme <Works>"))
    seen = Seen(pages("signed_out", facts(), {}).body.decode())
    assert seen.words.count("Acme <Works>") == 2


def test_a_head_request_gets_no_body() -> None:
    assert PAGES("signed_out", facts("HEAD"), {}).body == b""


@pytest.mark.parametrize(
    ("name", "model"), [("me", {}), ("step_up", {"factors": None}), ("nothing", {}), ("factors", factors(factors=[{}]))]
)
def test_a_page_that_cannot_be_drawn_is_a_denial(name: Any, model: Any) -> None:
    reply = PAGES(name, facts(), model)
    assert (reply.status, reply.reason) == (500, "gateway_error")
