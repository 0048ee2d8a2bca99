"""The guided tour: what a zero-trust gateway must do and must refuse, each seen with a real client."""

from __future__ import annotations

import json
import secrets
import ssl
import time
from collections.abc import Sequence

import httpx

from gateway.demo import services
from gateway.demo.clients import http as client
from gateway.demo.clients.http import Browser, DeviceFiles
from gateway.demo.tour import attacks
from gateway.demo.tour.anomalies import NoticeTour
from gateway.demo.tour.login import PeopleTour
from gateway.demo.tour.steps import Seen, Step
from gateway.demo.world import ASK_AGAIN_S, DIRECTORY, ECHO, PORTAL, World

_OK, _CREATED, _BAD_REQUEST, _UNAUTHENTICATED, _FORBIDDEN = 200, 201, 400, 401, 403
_POLICY_LIMIT_S = 1.0
_SLACK_S = 0.5
_PATIENCE_S = 10.0
_POLL_S = 0.02
_BIG_MIB = 32
_RULE = '\nblocks contains "under_maintenance" if input.service.name == "echo"\n'


class Tour:
    """The steps through one world, in order; later ones build on earlier ones."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._device = DeviceFiles(world.folder / "laptop" / "device.pem", world.folder / "laptop" / "device.key")
        self._device_id = self._enrolment = self._alice = ""
        self._browsers: dict[tuple[str, bool, bool], Browser] = {}
        self._people = PeopleTour(world, self._device)
        self._notice = NoticeTour(world, self._device)

    def steps(self) -> Sequence[Step]:
        """Every step."""
        token, person = self._with_token, self._with_person
        cached = f"when the {ASK_AGAIN_S} s cache ends"
        return (
            Step("Enrol", "The operator looks at the whole configuration", "0 problems", self._check),
            Step("Enrol", "A device makes a key and enrols with a one-time token", "201, certificate", self._enrol),
            Step("Enrol", "The same token once more", "403 enrolment_invalid", self._enrol_again),
            Step("Pass", "Alice on her laptop reads the directory", "200, 12 people", self._good),
            Step("Pass", "The service verifies who the gateway says it is", "200, Alice", self._assertion),
            Step("Pass", "Past the gateway: the service wants its signature", "401 by the service", self._past),
            Step("Pass", "Bob is no administrator: accounts are masked", "200, masked", self._masked),
            Step("Device", "No certificate", "403 device_required", self._no_certificate),
            Step("Device", "The same certificate from a foreign CA", "handshake fails", self._foreign_certificate),
            Step("Device", "TLS 1.2", "handshake fails", self._old_tls),
            Step("Token", "No token", "401 login_required", lambda: token(None, "login_required")),
            Step("Token", "An expired token", "401 token_expired", lambda: token("expired", "token_expired")),
            Step(
                "Token", "Another issuer", "401 token_issuer_unknown", lambda: token("foreign", "token_issuer_unknown")
            ),
            Step(
                "Token",
                "Signed with nothing (alg none)",
                "401 token_algorithm_refused",
                lambda: token("alg_none", "token_algorithm_refused"),
            ),
            Step(
                "Token",
                "For another audience",
                "401 token_audience_wrong",
                lambda: token("audience", "token_audience_wrong"),
            ),
            Step("Token", "An id token", "401 token_kind_wrong", lambda: token("id_token", "token_kind_wrong")),
            Step("Token", "One letter of it changed", "401 token_signature_invalid", self._tampered),
            Step(
                "Policy",
                "Dave has the wrong role",
                "403 role_missing",
                lambda: person("dave", _FORBIDDEN, "role_missing"),
            ),
            Step(
                "Policy",
                "Carol's department may not",
                "403 department_mismatch",
                lambda: person("carol", _FORBIDDEN, "department_mismatch"),
            ),
            Step(
                "Policy",
                "Erin signed in with a password alone",
                "401 mfa_required",
                lambda: person("erin", _UNAUTHENTICATED, "mfa_required"),
            ),
            Step(
                "Request",
                f"Identity headers, spoofed in {len(attacks.SPOOFED)} spellings",
                "none arrives",
                self._spoofed,
            ),
            Step(
                "Request",
                f"Path tricks, {len(attacks.PATHS)} kinds",
                "400 malformed_request",
                lambda: self._raw_requests(self._trick_requests()),
            ),
            Step(
                "Request",
                f"Smuggled requests, {len(attacks.SMUGGLED)} kinds",
                "400 malformed_request",
                lambda: self._raw_requests(self._smuggled_requests()),
            ),
            Step("Traffic", "A WebSocket echoes", "text and 64 KiB", self._websocket),
            Step("Traffic", "Server-sent events come in pieces", f"{services.EVENTS} events, spread", self._events),
            Step("Traffic", f"A download of {_BIG_MIB} MiB", "200, every byte", self._download),
            Step("Traffic", "A chunked upload comes back", "200, the same", self._upload),
            Step("Change", "A rule is added on disk", "403 within 1 s", lambda: self._edited(closing=True)),
            Step("Change", "The rule is taken out again", "200 within 1 s", lambda: self._edited(closing=False)),
            Step("Change", "A zero-log request leaves no trace", "found nowhere", self._zero_log),
            *self._people.steps(),
            *self._notice.steps(),
            Step("Take away", "Bob's session ends at the provider", f"401 {cached}", self._session_ended),
            Step("Take away", "The laptop is revoked, its connection stays open", "403 device_revoked", self._revoked),
        )

    def close(self) -> None:
        """Close every connection."""
        self._people.close()
        self._notice.close()
        for browser in self._browsers.values():
            browser.close()

    def _browser(self, host: str, *, device: bool = True, http2: bool = True) -> Browser:
        key = (host, device, http2)
        if key not in self._browsers:
            shown = self._device if device else None
            self._browsers[key] = Browser(self.world.port, host, self.world.pki.root, shown, http2=http2)
        return self._browsers[key]

    def _context(self) -> ssl.SSLContext:
        return client.client_context(self.world.pki.root, self._device)

    # ---- enrol ----

    def _check(self) -> Seen:
        said = self.world.operator("check").strip().splitlines()[-1]
        return Seen(said.removeprefix("check: "), passed="check: 0 problems" in said)

    def _enrol(self) -> Seen:
        self._device_id, self._enrolment = self.world.add_device("laptop", "alice")
        folder = self._device.key.parent
        answer, files = client.enrol(self.world.port, self.world.pki.root, self._enrolment, folder)
        self._alice = self.world.token("alice")
        mine = files is not None and answer.json()["device_id"] == self._device_id
        return Seen(f"{answer.status_code}, device {self._device_id[:8]}", answer.status_code == _CREATED and mine)

    def _enrol_again(self) -> Seen:
        folder = self.world.folder / "again"
        answer, _ = client.enrol(self.world.port, self.world.pki.root, self._enrolment, folder)
        return _refused(answer, _FORBIDDEN, "enrolment_invalid")

    # ---- pass ----

    def _good(self) -> Seen:
        answer = self._browser(DIRECTORY).ask("/people", self._alice)
        count = len(answer.raise_for_status().json()["people"])
        recorded = self._recorded(answer.headers["x-gateway-decision"])
        return Seen(f"200, {count} people, {answer.http_version}", count == len(services.people()), recorded)

    def _recorded(self, decision: str) -> str:
        """The reason that the record holds for a decision."""
        with (self.world.folder / "state" / "decisions.jsonl").open(encoding="ascii") as record:
            return next(str(event["reasons"][0]) for event in map(json.loads, record) if event["decision"] == decision)

    def _assertion(self) -> Seen:
        answer = self._browser(DIRECTORY).ask("/whoami", self._alice).raise_for_status().json()
        claims = answer["claims"]
        whole = answer["verified"] is True and claims["device"] == self._device_id and claims["department"] == "people"
        return Seen(f"200, {claims['name']}, {claims['email']}", whole and claims["name"] == "Alice Adler")

    def _past(self) -> Seen:
        answer = self.world.past_the_gateway("/people")
        return Seen(f"{answer.status_code}: {answer.json()['error']}", answer.status_code == _UNAUTHENTICATED)

    def _masked(self) -> Seen:
        whole = self._browser(DIRECTORY).ask("/people/1", self._alice).raise_for_status().json()
        masked = self._browser(DIRECTORY).ask("/people/1", self.world.token("bob")).raise_for_status().json()
        account = masked["salary_account"]
        hidden = account == "***" + whole["salary_account"][-2:] and masked["name"] == whole["name"]
        return Seen(f"200, {account} for {whole['salary_account'][:8]}…", hidden)

    # ---- device ----

    def _no_certificate(self) -> Seen:
        answer = self._browser(DIRECTORY, device=False).ask("/people", self._alice)
        return _refused(answer, _FORBIDDEN, "device_required")

    def _foreign_certificate(self) -> Seen:
        foreign = client.foreign_device(self.world.folder / "foreign", self._device_id)
        return self._handshake(client.client_context(self.world.pki.root, foreign))

    def _old_tls(self) -> Seen:
        context = self._context()
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
        return self._handshake(context)

    def _handshake(self, context: ssl.SSLContext) -> Seen:
        """No request is sent: with one on its way, a reset could overtake the alert."""
        try:
            answer = client.raw(self.world.port, DIRECTORY, context, b"")
        except ssl.SSLError as error:
            said = (error.reason or "TLS error").lower().replace("_", " ")
            return Seen(said, passed="alert" in said)
        return Seen(answer[:60].decode("latin-1") or "closed without an alert", passed=False)

    # ---- token, policy ----

    def _with_token(self, kind: str | None, code: str) -> Seen:
        token = None if kind is None else self.world.token("alice", kind)
        return _refused(self._browser(DIRECTORY).ask("/people", token), _UNAUTHENTICATED, code)

    def _tampered(self) -> Seen:
        head, body, signature = self._alice.split(".")
        middle = len(signature) // 2
        changed = "A" if signature[middle] != "A" else "B"
        token = f"{head}.{body}.{signature[:middle]}{changed}{signature[middle + 1 :]}"
        return _refused(self._browser(DIRECTORY).ask("/people", token), _UNAUTHENTICATED, "token_signature_invalid")

    def _with_person(self, user: str, status: int, code: str) -> Seen:
        return _refused(self._browser(DIRECTORY).ask("/people", self.world.token(user)), status, code)

    # ---- request ----

    def _spoofed(self) -> Seen:
        browser = self._browser(ECHO, http2=False)
        arrived = browser.ask("/headers", self._alice, headers=attacks.SPOOFED).raise_for_status().json()["headers"]
        bad = [name for name, value in arrived if "root" in value or "203.0.113.66" in value or name == "authorization"]
        ours = ["x-forwarded-for", client.ADDRESS] in arrived
        return Seen(f"{len(attacks.SPOOFED)} sent, {len(bad)} arrived", passed=not bad and ours)

    def _request(self, method: str, target: str, host: str) -> bytes:
        lines = (
            f"{method} {target} HTTP/1.1",
            f"Host: {host}:{self.world.port}",
            f"Authorization: Bearer {self._alice}",
        )
        return "".join(f"{line}\r\n" for line in lines).encode("latin-1")

    def _trick_requests(self) -> list[bytes]:
        return [self._request("GET", path, ECHO) + b"\r\n" for path in attacks.PATHS]

    def _smuggled_requests(self) -> list[bytes]:
        hidden = self._request("GET", "/headers", ECHO) + b"\r\n"
        return [self._request("POST", "/echo", ECHO) + rest + hidden for rest in attacks.SMUGGLED]

    def _raw_requests(self, requests: Sequence[bytes]) -> Seen:
        """Each is answered with one refusal, and none of it reaches the service."""
        before, context = self.world.requests_at_echo(), self._context()
        refused = 0
        for request in requests:
            answer = client.raw(self.world.port, ECHO, context, request).lower()
            once = answer.count(b"http/1.1 ") == 1 and answer.startswith(b"http/1.1 400 ")
            refused += once and b"\r\nx-gateway-reason: malformed_request\r\n" in answer
        reached = self.world.requests_at_echo() - before
        whole = refused == len(requests) and reached == 0
        text = f"{refused} of {len(requests)} refused, {reached} got through"
        return Seen(text, whole, "malformed_request" if refused else "")

    # ---- traffic ----

    def _websocket(self) -> Seen:
        messages = ("hello", secrets.token_bytes(65_536), "goodbye")
        bearer = {"authorization": f"Bearer {self._alice}"}
        with client.websocket(self.world.port, ECHO, self._context(), bearer) as opened:
            answers = client.echoed(opened, messages)
        return Seen(f"{len(answers)} messages came back", answers == list(messages))

    def _events(self) -> Seen:
        answer, pieces = self._browser(ECHO).arrivals("/sse", self._alice)
        events = b"".join(piece for _, piece in pieces).count(b"data: ")
        spread = pieces[-1][0] - pieces[0][0]
        least = services.EVENT_GAP_S * (services.EVENTS - 2)
        fine = answer.status_code == _OK and events == services.EVENTS and spread >= least
        return Seen(f"{events} events over {spread:.1f} s", fine)

    def _download(self) -> Seen:
        started = time.monotonic()
        answer, pieces = self._browser(ECHO).arrivals(f"/big?mib={_BIG_MIB}", self._alice)
        size = sum(len(piece) for _, piece in pieces)
        took = time.monotonic() - started
        return Seen(f"{answer.status_code}, {size >> 20} MiB in {took:.1f} s", size == _BIG_MIB << 20)

    def _upload(self) -> Seen:
        sent = [secrets.token_bytes(4_096) for _ in range(16)]
        answer = self._browser(ECHO).ask("/echo", self._alice, method="POST", content=iter(sent))
        same = answer.content == b"".join(sent)
        return Seen(f"{answer.status_code}, {len(answer.content) >> 10} KiB", answer.status_code == _OK and same)

    # ---- change ----

    def _edited(self, *, closing: bool) -> Seen:
        """Edit a policy file and ask until the answer is another one; every request on the way gets an answer."""
        file = self.world.policies / "gateway" / "department.rego"
        source = file.read_text(encoding="utf-8")
        wanted = _FORBIDDEN if closing else _OK
        file.write_text(source + _RULE if closing else source.removesuffix(_RULE), encoding="utf-8")
        answer, took = self._until(wanted, self._alice)
        code = answer.headers.get("x-gateway-reason", "")
        right = answer.status_code == wanted and code == ("under_maintenance" if closing else "")
        return Seen(f"{answer.status_code} after {took:.2f} s", right and took <= _POLICY_LIMIT_S, code)

    def _until(self, status: int, token: str) -> tuple[httpx.Response, float]:
        """Ask the echo until it answers with `status`: the answer and the seconds that took."""
        started = time.monotonic()
        while True:
            answer = self._browser(ECHO).ask("/headers", token)
            took = time.monotonic() - started
            if answer.status_code == status or took > _PATIENCE_S:
                return answer, took
            time.sleep(_POLL_S)

    def _zero_log(self) -> Seen:
        canary, control = f"canary{secrets.token_hex(8)}", f"canary{secrets.token_hex(8)}"
        marked = {"user-agent": canary, "x-note": canary, "cookie": f"id={canary}"}
        portal = self._browser(PORTAL, device=False)
        passed = portal.ask(f"/headers?q={canary}", headers=marked).status_code
        portal.ask(f"/{canary}", headers=marked)
        refused = portal.ask("/echo", f"{canary}", method="POST", headers=marked, content=canary).status_code
        # The same search must find a request on the staff plane, or it proves nothing.
        self._browser(ECHO).ask(f"/{control}", self._alice)
        time.sleep(_SLACK_S)
        files, control_files = self.world.traces(canary.encode()), self.world.traces(control.encode())
        text = f"in {len(files)} files; a staff request in {len(control_files)}"
        fine = passed == _OK and refused == _UNAUTHENTICATED and not files and bool(control_files)
        return Seen(", ".join(files) or text, fine)

    # ---- take away ----

    def _session_ended(self) -> Seen:
        bob = self.world.token("bob")
        before = self._browser(ECHO).ask("/headers", bob).status_code
        self.world.end_session("bob")
        answer, took = self._until(_UNAUTHENTICATED, bob)
        code = answer.headers.get("x-gateway-reason", "")
        in_time = answer.status_code == _UNAUTHENTICATED and took <= ASK_AGAIN_S + _SLACK_S
        return Seen(f"{answer.status_code} after {took:.2f} s", before == _OK and in_time, code)

    def _revoked(self) -> Seen:
        browser = self._browser(DIRECTORY)
        before = browser.ask("/people", self._alice)
        self.world.operator("device", "revoke", self._device_id, "--why", "the tour is over")
        after = browser.ask("/people", self._alice)
        same = client.connection_of(before) == client.connection_of(after)
        seen = _refused(after, _FORBIDDEN, "device_revoked")
        text = f"{after.status_code}, {'same connection' if same else 'another connection'}"
        return Seen(text, seen.passed and same and before.status_code == _OK, seen.code)


def _refused(answer: httpx.Response, status: int, code: str) -> Seen:
    """Whether the gateway refused with this status and reason."""
    found = answer.headers.get("x-gateway-reason", "")
    return Seen(str(answer.status_code), answer.status_code == status and found == code, found)
