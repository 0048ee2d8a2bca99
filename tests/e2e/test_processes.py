"""The gateway as processes: workers die, files change, the disk fills up, SIGTERM comes, users leave no trace."""

import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import httpx
import pytest

from gateway.demo.clients.http import Browser, DeviceFiles, enrol
from gateway.demo.world import DIRECTORY, ECHO, PORTAL, World

pytestmark = pytest.mark.xdist_group("processes")


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World(workers=2) as made:
        made.start()
        yield made


@pytest.fixture(scope="module")
def device(world: World) -> DeviceFiles:
    _, token = world.add_device("laptop", "alice")
    answer, files = enrol(world.port, world.pki.root, token, world.folder / "laptop")
    assert files is not None, answer.text
    return files


@pytest.fixture
def browse(world: World, device: DeviceFiles) -> Iterator[Callable[..., Browser]]:
    made: list[Browser] = []

    def make(host: str = ECHO, *, http2: bool = False) -> Browser:
        made.append(Browser(world.port, host, world.pki.root, device, http2=http2))
        return made[-1]

    yield make
    for browser in made:
        browser.close()


def supervisor(world: World) -> subprocess.Popen[bytes]:
    return world._processes.named("gateway")


def workers(world: World) -> list[int]:
    listed = subprocess.run(["pgrep", "-P", str(supervisor(world).pid)], capture_output=True, text=True, check=False)
    return [int(pid) for pid in listed.stdout.split()]


def until(what: Callable[[], object], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def config(world: World, old: str, new: str) -> None:
    text = world.config.read_text()
    assert old in text
    world.config.write_text(text.replace(old, new))


class Load:
    """Requests on fresh connections, one after the other, in threads; every answer and every failure is kept."""

    def __init__(self, world: World, device: DeviceFiles, token: str, *, keep: bool = False) -> None:
        self.answers: list[tuple[float, int]] = []
        self.failures: list[tuple[float, str]] = []
        self._arguments = world.port, ECHO, world.pki.root, device
        self._token, self._keep, self._stop = token, keep, threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(2)]

    def _run(self) -> None:
        browser = Browser(*self._arguments, http2=False)
        while not self._stop.is_set():
            try:
                status = browser.ask("/headers", self._token).status_code
                self.answers.append((time.monotonic(), status))
            except httpx.HTTPError as error:
                self.failures.append((time.monotonic(), repr(error)))
            if not self._keep:
                browser.close()
                browser = Browser(*self._arguments, http2=False)
        browser.close()

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def test_a_worker_killed_under_load_is_replaced_and_the_others_go_on(world: World, device: DeviceFiles) -> None:
    until(lambda: len(workers(world)) == 2)
    victim = workers(world)[0]
    with Load(world, device, world.token("alice")) as load:
        until(lambda: len(load.answers) > 10)
        killed = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        until(lambda: any(at > killed + 1 for at, _ in load.answers))
        until(lambda: len(workers(world)) == 2 and victim not in workers(world))
    assert {status for _, status in load.answers} == {200}
    # What the dead worker had in hand is lost to its client; nothing fails any more a second later.
    assert [failure for at, failure in load.failures if at > killed + 1] == []
    assert min(at for at, _ in load.answers if at > killed) < killed + 1
    assert b"gateway_worker_restarts_total 1" in world.metrics()
    until(lambda: httpx.get(f"http://127.0.0.1:{world.admin_port}/readyz").is_success, 30)


def test_workers_run_nobody_elses_code_and_leave_no_core(world: World) -> None:
    pids = workers(world)
    assert len(pids) == 2
    directories = set()
    for pid in pids:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        assert b"-P" in command
        status = Path(f"/proc/{pid}/status").read_text()
        assert "NoNewPrivs:\t1" in status
        limits = Path(f"/proc/{pid}/limits").read_text()
        assert re.search(r"Max core file size +0 +0 ", limits)
        directory = Path(f"/proc/{pid}/cwd").readlink()
        assert directory.stat().st_mode & 0o077 == 0
        assert list(directory.iterdir()) == []
        directories.add(directory)
    assert len(directories) == 2


def test_a_worker_without_file_descriptors_is_not_ready(world: World) -> None:
    until(lambda: len(workers(world)) == 2)
    ready = f"http://127.0.0.1:{world.admin_port}/readyz"
    until(lambda: httpx.get(ready).is_success, 30)
    worker = workers(world)[0]
    before = resource.prlimit(worker, resource.RLIMIT_NOFILE)
    assert before[0] == before[1]
    resource.prlimit(worker, resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        until(lambda: httpx.get(ready).status_code == 503)
    finally:
        resource.prlimit(worker, resource.RLIMIT_NOFILE, before)
    until(lambda: httpx.get(ready).is_success)


def test_no_request_is_dropped_by_reloads(world: World, device: DeviceFiles) -> None:
    with Load(world, device, world.token("alice"), keep=True) as load:
        until(lambda: len(load.answers) > 5)
        for round_ in range(4):
            supervisor(world).send_signal(signal.SIGHUP)
            config(world, "sensitivity: high", "sensitivity:  high") if round_ % 2 else None
            time.sleep(0.4)
            config(world, "sensitivity:  high", "sensitivity: high") if round_ % 2 else None
        until(lambda: len(load.answers) > 40)
    assert load.failures == []
    assert {status for _, status in load.answers} == {200}


def test_a_bad_configuration_changes_nothing_and_is_said(world: World, browse: Callable[..., Browser]) -> None:
    token, browser = world.token("alice"), browse()
    before = world.policy_version()
    config(world, "sensitivity: high", "sensitivty: high")
    until(lambda: "sensitivty" in (world.logs / "gateway.log").read_text())
    assert browser.ask("/headers", token).status_code == 200
    config(world, "sensitivty: high", "sensitivity: high")
    broken = world.policies / "gateway" / "broken.rego"
    broken.write_text("package gateway.authz\nblocks contains\n")
    until(lambda: "broken.rego" in (world.logs / "gateway.log").read_text())
    assert browser.ask("/headers", token).status_code == 200
    assert world.policy_version() == before
    broken.unlink()


def test_a_changed_policy_decides_within_a_second(world: World, browse: Callable[..., Browser]) -> None:
    token, browser = world.token("alice"), browse()
    rule = world.policies / "gateway" / "closed.rego"
    rule.write_text('package gateway.authz\n\nblocks contains "closed_today" if input.service.name == "echo"\n')
    changed = time.monotonic()
    until(lambda: browser.ask("/headers", token).status_code == 403)
    assert time.monotonic() - changed < 2  # a second is the aim; a busy test machine gets two
    assert browser.ask("/headers", token).headers["x-gateway-reason"] == "closed_today"
    rule.unlink()
    until(lambda: browser.ask("/headers", token).status_code == 200)


def test_what_cannot_be_recorded_does_not_happen(world: World, browse: Callable[..., Browser]) -> None:
    token, browser = world.token("alice"), browse()
    reached = world.requests_at_echo()
    config(world, "policy: {path: policies}", "policy: {path: policies}\nrecord: {file: /dev/full}")
    try:
        until(lambda: browser.ask("/headers", token).status_code == 503)
        counted = world.requests_at_echo()
        answer = browser.ask("/headers", token)
        assert answer.headers["x-gateway-reason"] == "record_unavailable"
        assert world.requests_at_echo() == counted
        assert browse(PORTAL).ask("/headers").status_code == 200, "the user plane has no record to fail"
    finally:
        config(world, "\nrecord: {file: /dev/full}", "")
    until(lambda: browser.ask("/headers", token).status_code == 200)
    assert world.requests_at_echo() > reached


def test_a_user_leaves_no_trace_anywhere(world: World, browse: Callable[..., Browser]) -> None:
    canary = "canary-7c0ffee7"
    sent = {"x-trace": canary, "user-agent": canary, "cookie": f"a={canary}", "referer": f"https://{canary}.example/"}
    for http2 in (False, True):
        portal = browse(PORTAL, http2=http2)
        assert portal.ask(f"/headers/{canary}", headers=sent).status_code == 404
        assert portal.ask(f"/headers?q={canary}", headers=sent).status_code == 200
        assert portal.ask(f"/echo/{canary}", canary, method="POST", headers=sent, content=canary).status_code == 401
        assert portal.ask(f"/a/../{canary}", headers=sent).status_code in {200, 400, 404}
        assert portal.ask("/headers", method="DELETE", headers=sent, content=canary * 100).status_code < 500
    assert world.traces(canary.encode()) == []
    staff = browse(DIRECTORY).ask(f"/people/{canary}", world.token("alice"))
    assert staff.status_code == 404
    assert world.traces(canary.encode()) == ["state/decisions.jsonl"]


def test_a_record_line_says_who_what_and_why_and_no_more(world: World, browse: Callable[..., Browser]) -> None:
    token = world.token("carol")
    answer = browse(DIRECTORY).ask("/people?secret=query-value-123", token, headers={"cookie": "c=cookie-value-123"})
    assert answer.status_code == 403
    record = (world.folder / "state/decisions.jsonl").read_text()
    line = next(json.loads(row) for row in record.splitlines() if answer.headers["x-gateway-decision"] in row)
    assert line["effect"] == "deny"
    assert line["reasons"] == ["department_mismatch"]
    assert line["service"] == "directory"
    assert line["policy"] == world.policy_version()
    assert line["timings_us"]["decide"] > 0
    for secret in (token, "query-value-123", "cookie-value-123"):
        assert secret not in record


def test_sigterm_lets_what_is_under_way_end(world: World, device: DeviceFiles, tmp_path: Path) -> None:
    with World() as own:
        own.start()
        _, token = own.add_device("laptop", "alice")
        _, files = enrol(own.port, own.pki.root, token, own.folder / "laptop")
        browser = Browser(own.port, ECHO, own.pki.root, files, http2=False)
        access = own.token("alice")
        pieces: list[bytes] = []
        started = threading.Event()

        def slow() -> None:
            with browser._client.stream(
                "GET", "/sse", headers={"authorization": f"Bearer {access}"}, extensions={"sni_hostname": ECHO}
            ) as response:
                for piece in response.iter_raw():
                    started.set()
                    pieces.append(piece)

        thread = threading.Thread(target=slow)
        thread.start()
        assert started.wait(10)
        process = supervisor(own)
        process.send_signal(signal.SIGTERM)
        thread.join(10)
        assert b"".join(pieces).count(b"data:") == 5
        assert process.wait(15) == 0
        browser.close()


def test_the_gateway_says_what_is_wrong_before_it_serves(tmp_path: Path) -> None:
    bad = tmp_path / "gateway.yaml"
    bad.write_text("version: 1\nservces: {}\n")
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "serve", "-c", str(bad)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert "gateway.yaml:2" in done.stderr
    assert "services" in done.stderr


def replace(file: Path, text: str) -> None:
    """As editors and configuration management write: a new file, renamed over the old one."""
    beside = file.with_name(f".{file.name}.new")
    beside.write_text(text, encoding="utf-8")
    beside.chmod(file.stat().st_mode & 0o777)
    beside.replace(file)


def reloads(world: World) -> int:
    return (world.logs / "gateway.log").read_text(encoding="utf-8").count('"event": "reloaded"')


def test_a_file_is_seen_however_often_it_is_replaced(world: World) -> None:
    for file in (world.config, world.config, world.pki.folder / "server.pem", world.pki.folder / "server.key"):
        before = reloads(world)
        replace(file, file.read_text(encoding="utf-8") + "\n")
        until(lambda before=before: reloads(world) > before)  # type: ignore[misc]


def test_a_service_that_is_renamed_under_an_open_request_ends_nobody(
    world: World, browse: Callable[..., Browser]
) -> None:
    before = workers(world)
    go_on = threading.Event()

    def slowly() -> Iterator[bytes]:
        yield b"one"
        assert go_on.wait(30)
        yield b" two"

    answers: list[httpx.Response] = []
    token, browser = world.token("alice"), browse()
    thread = threading.Thread(
        target=lambda: answers.append(browser.ask("/echo", token, method="POST", content=slowly()))
    )
    arrived, reloaded = world.requests_at_echo(), reloads(world)
    thread.start()
    until(lambda: world.requests_at_echo() > arrived)
    config(world, "  echo:\n", "  mirror:\n")
    try:
        until(lambda: reloads(world) > reloaded)
        # Long enough for the sweep that looks after every open request.
        time.sleep(1.5)
    finally:
        go_on.set()
        thread.join(20)
        config(world, "  mirror:\n", "  echo:\n")
    assert [answer.content for answer in answers] == [b"one two"]
    assert workers(world) == before


@pytest.fixture
def site(tmp_path: Path) -> Path:
    folder = tmp_path / "site"
    done = run("init", str(folder), "--host", "gateway.corp.example", "--host", "wiki.corp.example")
    assert done.returncode == 0, done.stderr
    return folder / "gateway.yaml"


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gateway", *words], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("section", ["listen", "admin"])
def test_a_port_that_is_taken_is_said_and_nothing_serves(site: Path, section: str) -> None:
    text = re.sub(r"^(listen|admin):.*\n(?:[ #].*\n)*", "", site.read_text(encoding="utf-8"), flags=re.MULTILINE)
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        ports = {"listen": 0, "admin": 0} | {section: taken}
        lines = "".join(f"{name}: {{address: 127.0.0.1, port: {port}}}\n" for name, port in ports.items())
        site.write_text(lines + text, encoding="utf-8")
        done = run("serve", "-c", str(site))
    assert done.returncode == 1
    assert f"{section}.port" in done.stderr
    assert "something listens there" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_check_finds_keeps_it_from_serving(site: Path) -> None:
    key = site.parent / "pki" / "server.key"
    key.chmod(0o644)
    done = run("serve", "-c", str(site))
    assert done.returncode == 1
    assert f"chmod 600 {key}" in done.stderr


def test_a_node_is_taken_out_of_service_and_put_back(world: World, browse: Callable[..., Browser]) -> None:
    token, browser = world.token("alice"), browse()
    assert browser.ask("/headers", token).status_code == 200
    assert world.operator("node", "quarantine", "--why", "tampered") == "quarantined: tampered\n"
    try:
        until(lambda: browser.ask("/headers", token).headers.get("x-gateway-reason") == "node_quarantined")
        assert world.operator("node", "show") == "quarantined: tampered\n"
    finally:
        world.operator("node", "release")
    until(lambda: browser.ask("/headers", token).status_code == 200)
