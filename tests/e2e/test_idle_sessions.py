"""The idle limit of a session, with real processes and a real clock: what is left open does not count as use."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import pytest
from websockets.exceptions import ConnectionClosed

from gateway.core.cookies import SESSION
from gateway.demo.clients import http as client
from gateway.demo.world import ECHO, World
from tests.support.login_site import PROGRAM, Place, reason

pytestmark = [pytest.mark.timeout(120), pytest.mark.xdist_group("idle")]
IDLE_S = 5


class Impatient(World):
    """The demo world, whose sessions end after a few seconds without use."""

    def _spawn(self, name: str, arguments: Sequence[str]) -> None:
        if name == "gateway":
            text = self.config.read_text(encoding="utf-8")
            limits = f"sessions: {{idle_s: {IDLE_S}, absolute_s: 60}}\nlimits: {{rejudge_s: 0.5}}\n"
            self.config.write_text(text.replace("risk: {}\n", f"risk: {{}}\n{limits}"), encoding="utf-8")
        super()._spawn(name, arguments)


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with Impatient() as world:
        world.start()
        made = Place(world)
        yield made
        made.close()


@pytest.mark.parametrize("speaks", [False, True], ids=["left open", "in use"])
def test_a_websocket_keeps_a_session_alive_only_while_somebody_uses_it(place: Place, speaks: bool) -> None:
    person = place.signed_in("alice")
    context = client.client_context(place.world.pki.root, place.device("laptop"))
    cookie = f"{SESSION}={person.jars[ECHO][SESSION]}"
    with client.websocket(place.world.port, ECHO, context, {"cookie": cookie}) as line:
        until, cut = time.monotonic() + 2 * IDLE_S, None
        while time.monotonic() < until and cut is None:
            if speaks:
                assert client.echoed(line, ["I am here"]) == ["I am here"]
            try:
                line.recv(timeout=1)
            except TimeoutError:
                continue
            except ConnectionClosed as closed:
                cut = closed.rcvd
        assert (cut and (cut.code, cut.reason)) == (None if speaks else (1008, "session_expired"))
        answer = person.ask(place.url(ECHO, "/headers"), headers=PROGRAM)
        assert (answer.status_code, reason(answer)) == ((200, "") if speaks else (401, "session_expired"))
