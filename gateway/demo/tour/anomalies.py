"""The tour's part about noticing: a session turns up in another country, an open connection outlives its session."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Sequence

from websockets.exceptions import ConnectionClosed

from gateway.core import paths
from gateway.core.cookies import SESSION
from gateway.demo.clients import http as client
from gateway.demo.clients.headless_browser import Person
from gateway.demo.clients.http import DeviceFiles
from gateway.demo.tour.steps import Seen, Step
from gateway.demo.world import BALANCER, DIRECTORY, ECHO, GATEWAY, World

_OK, _UNAUTHENTICATED = 200, 401
_POLICY_VIOLATION = 1008
_PUSH_LIMIT_S = 1.0
_PATIENCE_S = 10.0
_PROGRAM = {"accept": "application/json"}
_GERMANY, _BRAZIL = "84.128.0.1", "200.147.3.157"


class NoticeTour:
    """Steps of one person, whose address is what a load balancer on this machine says it is."""

    def __init__(self, world: World, device: DeviceFiles) -> None:
        self.world = world
        self._device = device
        self._address = BALANCER if _is_ours(BALANCER) else ""
        self._alice, self._other = (Person(world.pki.root, device, self._address) for _ in range(2))

    def steps(self) -> Sequence[Step]:
        """Every step of this part; those about countries where this machine has an address for a load balancer."""
        abroad = (
            Step("Notice", "Alice signs in again, in Germany", "200", self._home),
            Step("Notice", "A moment later her session is in Brazil", "401 risk_medium", self._abroad),
            Step("Notice", "The operator asks what that was", "country_change", self._explained),
            Step("Notice", "In Germany it goes on", "200", self._home),
        )
        cut = Step(
            "Notice",
            "In a second browser she ends the others: her WebSocket",
            f"closed within {_PUSH_LIMIT_S:.0f} s",
            self._cut,
        )
        return (*(abroad if self._address else ()), cut)

    def close(self) -> None:
        """Close the browsers."""
        self._alice.close()
        self._other.close()

    def _url(self, host: str, path: str) -> str:
        return f"https://{host}:{self.world.port}{path}"

    def _code(self) -> str:
        return str(self.world.order("code", user="alice")["code"])

    def _home(self) -> Seen:
        self._alice.forwarded = _GERMANY
        answer = self._alice.sign_in(self._url(DIRECTORY, "/people"), "alice", code=self._code())
        return Seen(f"{answer.status_code}", answer.status_code == _OK)

    def _abroad(self) -> Seen:
        self._alice.forwarded = _BRAZIL
        answer = self._alice.ask(self._url(DIRECTORY, "/people"), headers=_PROGRAM)
        code = answer.headers.get("x-gateway-reason", "")
        return Seen(f"{answer.status_code}", answer.status_code == _UNAUTHENTICATED and code == "risk_medium", code)

    def _explained(self) -> Seen:
        live = json.loads(self.world.operator("session", "list", "--json"))
        mine = next(one for one in live if one["identity"].startswith("alice@"))
        told = json.loads(self.world.operator("risk", "explain", mine["issuer"], mine["subject"], "--json"))
        asked = [one["last"]["terms"] for one in told["sessions"] if (one["last"] or {}).get("effect") == "step_up"]
        terms = asked[0] if asked else {}
        text = ", ".join(f"{name} {value:+.1f}" for name, value in terms.items())
        return Seen(text or "nothing", "country_change" in terms)

    def _cut(self) -> Seen:
        page, own = self._url(ECHO, "/headers"), self._url(GATEWAY, "")
        self._alice.sign_in(page, "alice", code=self._code())
        headers = {
            "cookie": f"{SESSION}={self._alice.jars[ECHO][SESSION]}",
            "origin": self._url(ECHO, ""),
            "x-forwarded-for": _GERMANY,
        }
        self._other.sign_in(page, "alice", code=self._code())
        me = self._other.open(f"{own}{paths.ME}")
        context = client.client_context(self.world.pki.root, self._device)
        with client.websocket(self.world.port, ECHO, context, headers, self._address) as opened:
            before = client.echoed(opened, ["hello"])
            code, why, started = 0, "", time.monotonic()
            self._other.send(me, {"action": "end_others"}, own)
            try:
                opened.recv(timeout=_PATIENCE_S)
            except ConnectionClosed as closed:
                if closed.rcvd is not None:
                    code, why = closed.rcvd.code, closed.rcvd.reason
        took = time.monotonic() - started
        fine = before == ["hello"] and code == _POLICY_VIOLATION and took <= _PUSH_LIMIT_S
        return Seen(f"{code} after {took * 1000:.0f} ms", fine, why)


def _is_ours(address: str) -> bool:
    """Whether this machine has that address; not every system has all of 127.0.0.0/8."""
    with contextlib.closing(socket.socket()) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True
