import io
import json
import logging
from typing import Any

import pytest
import structlog

from gateway.observability import log

JWT = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhbm4ifQ.c2lnbmF0dXJl"


class Terminal(io.StringIO):
    def isatty(self) -> Any:
        return True


@pytest.fixture(autouse=True)
def restore() -> Any:
    root = logging.getLogger()
    before = root.handlers[:], root.level, logging.raiseExceptions
    yield
    root.handlers[:], root.level, logging.raiseExceptions = before
    logging.captureWarnings(False)
    structlog.reset_defaults()


@pytest.fixture
def out() -> Any:
    stream = io.StringIO()
    log.configure(stream)
    return stream


def lines(stream: Any) -> Any:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_json_without_a_terminal(out: Any) -> None:
    log.get("supervisor").info("reloaded", policy="abc", key="listen", code=3)
    [line] = lines(out)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "reloaded",
        "level": "info",
        "logger": "gateway.supervisor",
        "policy": "abc",
        "key": "listen",
        "code": 3,
    }


def test_a_terminal_gets_readable_lines() -> None:
    stream = Terminal()
    log.configure(stream)
    log.get("edge").warning("upstream_broken", service="directory")
    assert "upstream_broken" in stream.getvalue()
    assert not stream.getvalue().startswith("{")


def test_the_standard_logger_of_a_lower_layer_comes_out_the_same_way(out: Any) -> None:
    logging.getLogger("gateway.identity.oidc.relying_party").info("keys of %s fetched", "https://issuer")
    [line] = lines(out)
    assert line["event"] == "keys of https://issuer fetched"


@pytest.mark.parametrize(
    "fields",
    [
        {"authorization": "canary-1"},
        {"Set-Cookie": "canary-2"},
        {"client_secret": "canary-3"},
        {"access_token": "canary-4"},
        {"nested": {"deeper": [{"api_key": "canary-5"}]}},
        {"query": "canary-6"},
        {"note": "sent Bearer canary-bearer-value"},
        {"note": b"Basic Y2FuYXJ5OmNhbmFyeQ=="},
        {"note": f"token is {JWT}"},
        {"note": "-----BEGIN EC PRIVATE KEY-----\ncanary\n-----END EC PRIVATE KEY-----"},
    ],
)
def test_secrets_are_cut_out_by_name_and_by_shape(out: Any, fields: Any) -> None:
    log.get("edge").error("x", **fields)
    text = out.getvalue()
    assert "[cut out]" in text
    for secret in ("canary", "Y2FuYXJ5", "eyJhbG", "c2lnbm"):
        assert secret not in text


def test_a_traceback_shows_no_local_variable_and_no_secret(out: Any) -> None:
    def fail(password: Any) -> None:
        raise ValueError(f"Bearer {password}-and-more")

    try:
        fail("CANARY".lower())
    except ValueError:
        log.get("edge").exception("failed")
    [line] = lines(out)
    assert "ValueError" in line["exception"]
    assert "canary" not in out.getvalue()


def test_of_another_library_only_the_place_is_kept(out: Any) -> None:
    foreign = logging.getLogger("mitmproxy.proxy.server")
    foreign.info("client connect 192.0.2.7")
    try:
        raise KeyError("canary")  # noqa: TRY301 - what a library may do
    except KeyError:
        foreign.exception("canary of %s", "192.0.2.7", extra={"client": "192.0.2.7"})
    [line] = lines(out)
    assert line["event"].startswith("mitmproxy.proxy.server at test_log:")
    assert line["event"].endswith(": KeyError")
    assert "192.0.2.7" not in out.getvalue()
    assert "canary" not in out.getvalue()


def test_a_broken_line_says_nothing_on_stderr(out: Any, capsys: Any) -> None:
    logging.getLogger("gateway.x").error("two %s %s", "canary")  # noqa: PLE1206 - the mistake is the case
    out.close()
    logging.getLogger("gateway.x").error("canary")
    assert "canary" not in capsys.readouterr().err
