from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree import ElementTree as ET

import pyotp
import pytest

from gateway.core.factors import FactorOwner, FactorProven
from gateway.core.reasons import Refusal
from plugins.factors.totp import Totp

ADA = FactorOwner("https://id.example.com", "ada", "ada@example.com")
PLUGIN = Totp("Example Ltd")
NOW = 1_800_000_000.0  # the first second of a step
STEP = int(NOW // 30)


def code(secret: str, at: float) -> dict[str, str]:
    return {"code": pyotp.TOTP(secret).at(int(at))}


@pytest.fixture
def secret() -> str:
    return PLUGIN.enrol_begin(ADA, [], NOW).pending["secret"]  # type: ignore[no-any-return]


def prove(state: Any, answer: Any, now: float = NOW) -> Any:
    return PLUGIN.challenge_finish({}, [state], answer, now)


def test_a_secret_has_160_bits_and_is_never_given_twice() -> None:
    secrets = {PLUGIN.enrol_begin(ADA, [], NOW).pending["secret"] for _ in range(50)}
    assert len(secrets) == 50
    assert all(re.fullmatch("[A-Z2-7]{32}", secret) for secret in secrets)


def test_what_is_shown_is_one_secret_in_three_spellings() -> None:
    step = PLUGIN.enrol_begin(ADA, [], NOW)
    uri = urlsplit(step.show["uri"])
    assert (uri.scheme, uri.netloc) == ("otpauth", "totp")
    assert unquote(uri.path) == "/Example Ltd:ada@example.com"
    assert parse_qs(uri.query) == {"secret": [step.pending["secret"]], "issuer": ["Example Ltd"]}
    assert step.show["secret"] == step.pending["secret"]
    image = ET.fromstring(step.show["qr_svg"])  # noqa: S314 - our own text
    assert image.tag.endswith("svg")
    assert not re.search("style=|<script|<style|http", step.show["qr_svg"])


@pytest.mark.parametrize("account", ["", "a:b", "<b>&\"'", "é中", "x" * 300])
def test_any_account_name_gives_a_sound_uri(account: str) -> None:
    uri = PLUGIN.enrol_begin(FactorOwner("i", "s", account), [], NOW).show["uri"]
    assert unquote(urlsplit(uri).path) == "/Example Ltd:" + (account.replace(":", " ") or "account")


def test_the_algorithm_is_that_of_rfc_6238() -> None:
    secret = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
    for at, digits in (
        (59, "287082"),
        (1_111_111_109, "081804"),
        (1_234_567_890, "005924"),
        (20_000_000_000, "353130"),
    ):
        assert prove({"secret": secret, "last_step": -1}, {"code": digits}, at) == FactorProven(
            0, {"secret": secret, "last_step": at // 30}, ("otp",)
        )


@pytest.mark.parametrize("late_s", [-30, 0, 30])
def test_a_code_of_a_neighbouring_step_is_accepted(secret: str, late_s: int) -> None:
    found = prove({"secret": secret, "last_step": 0}, code(secret, NOW + late_s))
    assert found.state["last_step"] == STEP + late_s // 30


@pytest.mark.parametrize("late_s", [-60, -31, 60, 3_600])
def test_a_code_of_any_other_step_is_refused(secret: str, late_s: int) -> None:
    assert prove({"secret": secret, "last_step": 0}, code(secret, NOW + late_s)) == Refusal("factor_invalid")


def test_a_code_is_used_once(secret: str) -> None:
    answer = code(secret, NOW)
    state = prove({"secret": secret, "last_step": 0}, answer).state
    for now in (NOW, NOW + 1, NOW + 29, NOW + 59):
        assert prove(state, answer, now).reason == "factor_replayed"


def test_a_step_before_the_last_one_is_refused(secret: str) -> None:
    state = {"secret": secret, "last_step": STEP}
    assert prove(state, code(secret, NOW - 30)).reason == "factor_replayed"
    assert isinstance(prove(state, code(secret, NOW + 30)), FactorProven)


def test_the_code_that_enrolled_is_used(secret: str) -> None:
    answer = code(secret, NOW)
    state = PLUGIN.enrol_finish({"secret": secret}, [], answer, NOW)
    assert state == {"secret": secret, "last_step": STEP}
    assert prove(state, answer).reason == "factor_replayed"


def test_blanks_do_not_matter(secret: str) -> None:
    digits = code(secret, NOW)["code"]
    assert isinstance(prove({"secret": secret, "last_step": 0}, {"code": f" {digits[:3]} {digits[3:]} "}), FactorProven)


@pytest.mark.parametrize(
    "answer",
    [{}, {"code": None}, {"code": 1}, {"code": ""}, {"code": "12345"}, {"code": "1234567"}, {"code": "١٢٣٤٥٦"}],
)
def test_what_is_no_code_is_refused(secret: str, answer: Any) -> None:
    assert prove({"secret": secret, "last_step": 0}, answer) == Refusal("factor_invalid")
    assert PLUGIN.enrol_finish({"secret": secret}, [], answer, NOW) == Refusal("factor_invalid")


@pytest.mark.parametrize("name", ["", "a:b", "x" * 65, "a\n", None])
def test_a_name_that_apps_cannot_show_is_refused(name: Any) -> None:
    with pytest.raises(ValueError, match="totp: "):
        Totp(name)
