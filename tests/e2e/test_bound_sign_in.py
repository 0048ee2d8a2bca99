"""The sign-in of a browser that has a key is as good as that key: its cookie alone opens nothing."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from gateway.core.cookies import BOUND, SESSION, SSO
from gateway.demo.clients.headless_browser import Person
from gateway.demo.world import ECHO, GATEWAY, World
from tests.support.login_site import PROGRAM, Place, reason

pytestmark = [pytest.mark.timeout(120), pytest.mark.xdist_group("bound")]
_IN_FLIGHT_S = 10


class OptionalDevice(World):
    """The demo world, whose echo asks for no device: what is left to hold a session is a key of the browser."""

    def _spawn(self, name: str, arguments: object) -> None:
        if name == "gateway":
            text = self.config.read_text(encoding="utf-8")
            self.config.write_text(text.replace(f"    host: {ECHO}\n", f"    host: {ECHO}\n    device: optional\n"))
        super()._spawn(name, arguments)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with OptionalDevice() as world:
        world.start()
        made = Place(world)
        yield made
        made.close()


def register(place: Place, person: Person, answer: httpx.Response, host: str) -> int:
    """Do what a browser does when it is asked for a key."""
    key = ec.generate_private_key(ec.SECP256R1())
    challenge = re.search(r'challenge="([^"]+)"', answer.headers["secure-session-registration"])
    assert challenge is not None
    jwk = {
        name: value for name, value in ECAlgorithm.to_jwk(key.public_key(), as_dict=True).items() if name != "key_ops"
    }
    proof = jwt.encode({"jti": challenge[1]}, key, "ES256", headers={"typ": "dbsc+jwt", "jwk": jwk})
    done = person.ask(
        place.url(host, "/.gateway/dbsc/register"), method="POST", headers={"secure-session-response": proof}
    )
    return done.status_code


def test_the_cookies_of_a_sign_in_open_nothing_without_its_key(place: Place) -> None:
    owner = place.without_device()
    answer = owner.ask(place.callback(owner, "alice", place.at_provider(owner)))
    assert register(place, owner, answer, GATEWAY) == 200
    answer = owner.ask(answer.headers["location"])
    assert register(place, owner, answer, ECHO) == 200
    assert all(BOUND in owner.jars[host] for host in (GATEWAY, ECHO))
    time.sleep(_IN_FLIGHT_S + 1)
    assert owner.ask(place.url(ECHO, "/headers")).status_code == 200
    assert owner.ask(f"{place.own}/.gateway/me", headers=PROGRAM).status_code == 200

    service = place.without_device()
    service.jars[ECHO] = {SESSION: owner.jars[ECHO][SESSION]}
    answer = service.ask(place.url(ECHO, "/headers"), headers=PROGRAM)
    assert (answer.status_code, reason(answer)) == (401, "binding_unproven")

    sign_in = place.without_device()
    sign_in.jars[GATEWAY] = {SSO: owner.jars[GATEWAY][SSO]}
    assert "loginName" in sign_in.open(place.url(ECHO, "/headers")).text, "sent to sign in at the provider"
    answer = sign_in.ask(f"{place.own}/.gateway/me", headers=PROGRAM)
    assert answer.status_code == 401
    assert "csrf" not in answer.text
