"""The OPA library in a process: what it does to signals and threads, and what comes across the border to C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from gateway.policy.engines import opa_library
from gateway.policy.engines.compiled_policy import (
    CompiledPolicy,
    EvaluationCancelled,
    EvaluationFailed,
    PolicyRejected,
)
from gateway.policy.engines.opa_library import OpaLibrary, OpaUnavailable, library

ROOT = Path(__file__).parents[4]
ENTRY = "data.gateway.authz.decision"
SLOW = "decision := count([1 | numbers.range(1, 5000)[_]; numbers.range(1, 5000)[_]])"


def compiled(body: str, data: str = "{}") -> CompiledPolicy:
    return CompiledPolicy.load([("authz.rego", f"package gateway.authz\n\n{body}\n")], data.encode(), entry=ENTRY)


def test_a_panic_in_go_is_an_error_here_and_the_library_goes_on() -> None:
    with pytest.raises(PolicyRejected, match="nil pointer"):
        library().call("panic")
    assert compiled("decision := input.x").evaluate(b'{"x": 1}', 1.0) == 1


def test_an_unknown_operation_and_a_freed_policy_are_errors() -> None:
    with pytest.raises(PolicyRejected, match="no operation nonsense"):
        library().call("nonsense")
    policy = compiled("decision := 1")
    policy.close()
    policy.close()
    with pytest.raises(PolicyRejected, match="no such policies"):
        policy.evaluate(b"{}", 1.0)
    with pytest.raises(PolicyRejected, match="no such policies"):
        policy.evaluate_here(b"{}", 1.0)
    with pytest.raises(PolicyRejected, match="no policies with this handle"):
        policy.dependencies()


def test_an_evaluation_past_its_budget_is_cancelled() -> None:
    policy = compiled(SLOW)
    for evaluate in (policy.evaluate, policy.evaluate_here):
        started = time.monotonic()
        with pytest.raises(EvaluationCancelled):
            evaluate(b"{}", 0.05)
        assert time.monotonic() - started < 10


def test_an_evaluation_is_cancelled_by_its_ticket_while_other_threads_run() -> None:
    policy = compiled(SLOW)
    ticket, ended = policy.new_ticket(), list[object]()

    def evaluate() -> None:
        try:
            ended.append(policy.evaluate(b"{}", 60.0, ticket))
        except EvaluationCancelled as cancelled:
            ended.append(cancelled)

    thread = threading.Thread(target=evaluate)
    thread.start()
    while not library().statistics()["evaluations"]:
        time.sleep(0.01)
    policy.cancel(ticket)
    thread.join(5)
    assert not thread.is_alive()
    assert isinstance(ended[0], EvaluationCancelled)
    policy.cancel(ticket)
    assert library().statistics()["evaluations"] == 0


def test_an_answer_larger_than_the_buffer_comes_whole_and_one_without_bounds_is_refused() -> None:
    policy = compiled('decision := [concat("", ["x" | numbers.range(1, input.n)[_]])]')
    for evaluate in (policy.evaluate, policy.evaluate_here):
        assert evaluate(b'{"n": 200000}', 5.0) == ["x" * 200_000]
    with pytest.raises(PolicyRejected, match="too large"):
        compiled(
            "decision := [long | numbers.range(1, 16)[_]]\n\n"
            'long := concat("", ["0123456789abcdef" | numbers.range(1, 65536)[_]])'
        ).evaluate(b"{}", 10.0)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (b'{"x": "\xff"}', "not UTF-8"),
        (b"{", "a name or a brace was expected"),
        (b"[" * 20_000 + b"]" * 20_000, "depth"),
        (b'{"x": nope}', "invalid"),
    ],
)
def test_an_input_that_is_no_json_is_an_error(document: bytes, message: str) -> None:
    with pytest.raises(EvaluationFailed, match=message):
        compiled("decision := 1").evaluate(document, 1.0)


def test_a_deep_input_and_a_large_one_are_read() -> None:
    policy = compiled("decision := count(input.x)")
    assert policy.evaluate(b'{"x": [' + b"[" * 9_000 + b"]" * 9_000 + b"]}", 5.0) == 1
    assert policy.evaluate(json.dumps({"x": "y" * (8 << 20)}).encode(), 5.0) == 8 << 20


def test_numbers_are_exact_and_undefined_is_none() -> None:
    policy = compiled("decision := input.x")
    for number in ("9007199254740993", "123456789012345678901234567890", "0.1", "-1", "1e400"):
        assert policy.evaluate(f'{{"x": [{number}]}}'.encode(), 1.0) == [json.loads(number)]
    assert policy.evaluate(b"{}", 1.0) is None
    assert policy.evaluate(b'{"x": false}', 1.0) is False
    assert policy.evaluate(b'{"x": "<&>\\u2028\\ud83d\\ude00"}', 1.0) == "<&>\u2028\U0001f600"


def test_nothing_leaks_over_evaluations_and_reloads() -> None:
    """Scaled down; the figures of 1,000,000 and 10,000 stand in the decision record."""
    policy = compiled("decision := {x | some x in input.xs; x > data.least}", '{"least": 1}')
    document = json.dumps({"xs": list(range(20))}).encode()
    for _ in range(2_000):
        policy.evaluate_here(document, 30.0)
    before = _resident_bytes(), library().statistics()
    for _ in range(100_000):
        policy.evaluate_here(document, 30.0)
    for _ in range(1_000):
        compiled("decision := data.x", json.dumps({"x": list(range(50))})).close()
    after = _resident_bytes(), library().statistics()
    assert after[1]["policies"] == before[1]["policies"]
    assert after[1]["evaluations"] == 0
    assert after[1]["goroutines"] <= before[1]["goroutines"] + 2
    assert after[1]["heap_bytes"] < before[1]["heap_bytes"] + (2 << 20)
    assert after[0] < before[0] + (32 << 20)


def test_many_threads_evaluate_load_and_free_at_once() -> None:
    shared = compiled("decision := input.x + data.y", '{"y": 1}')
    wrong = list[object]()

    def work(number: int) -> None:
        for turn in range(200):
            own = compiled(f"decision := [{number}, input.x]")
            if (
                own.evaluate(b'{"x": %d}' % turn, 5.0) != [number, turn]
                or shared.evaluate(b'{"x": %d}' % turn, 5.0) != turn + 1
            ):
                wrong.append((number, turn))
            own.close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_missing_or_wrong_library_is_one_line_with_the_fix(tmp_path: Path) -> None:
    broken = tmp_path / "libopa_bridge.so"
    with pytest.raises(OpaUnavailable, match=r"is missing. Run `make setup`") as missing:
        OpaLibrary(broken)
    broken.write_bytes(b"\x7fELF, and no more")
    with pytest.raises(OpaUnavailable, match=r"cannot be loaded .* Run `make setup`") as unloadable:
        OpaLibrary(broken)
    assert all("\n" not in str(error.value) for error in (missing, unloadable))


def test_a_library_of_other_sources_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opa_library, "source_digest", lambda: "0" * 64)
    with pytest.raises(OpaUnavailable, match="other sources"):
        OpaLibrary(opa_library.LIBRARY)


SCRIPT = """
import os, signal, sys, threading, time, warnings
from gateway.policy.engines.compiled_policy import CompiledPolicy
from gateway.policy.engines.opa_library import library, OpaUnavailable

def policy():
    module = "package a\\nd := count([1 | numbers.range(1, 300)[_]])"
    return CompiledPolicy.load([("a.rego", module)], entry="data.a.d")

"""


def run_script(script: str) -> str:
    """What a fresh process prints."""
    command = [sys.executable, "-c", SCRIPT + textwrap.dedent(script)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()


def test_signals_stay_as_python_had_them() -> None:
    printed = run_script("""
        def ignored():
            return [line for line in open("/proc/self/status") if line.startswith("SigIgn")]
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
        before = {number: signal.getsignal(number) for number in signal.valid_signals()}, ignored()
        library()
        policy().evaluate(b"{}", 1.0)
        assert ({number: signal.getsignal(number) for number in signal.valid_signals()}, ignored()) == before
        assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == mask
        reader, writer = os.pipe()
        os.close(reader)
        try:
            os.write(writer, b"x")
        except BrokenPipeError:
            print("broken pipe")
    """)
    assert printed == "broken pipe"


def test_a_storm_of_signals_hits_no_evaluation() -> None:
    printed = run_script("""
        p, seen, stop = policy(), [], threading.Event()
        for number in (signal.SIGUSR1, signal.SIGCHLD, signal.SIGHUP, signal.SIGPROF):
            signal.signal(number, lambda number, frame: seen.append(number))
        signal.setitimer(signal.ITIMER_PROF, 0.001, 0.001)
        def storm():
            while not stop.is_set():
                for number in (signal.SIGUSR1, signal.SIGCHLD, signal.SIGHUP, signal.SIGURG, signal.SIGPIPE):
                    os.kill(os.getpid(), number)
                time.sleep(0.0005)
        thread = threading.Thread(target=storm)
        thread.start()
        end = time.monotonic() + 2
        while time.monotonic() < end:
            assert p.evaluate(b"{}", 5.0) == 300
            assert p.evaluate_here(b"{}", 5.0) == 300
        stop.set()
        thread.join()
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(len(set(seen)))
    """)
    assert printed == "4"


def test_a_child_that_was_forked_after_the_load_is_told_so() -> None:
    printed = run_script("""
        warnings.simplefilter("ignore")
        p = policy()
        p.evaluate(b"{}", 1.0)
        child = os.fork()
        if not child:
            try:
                p.evaluate(b"{}", 1.0)
            except OpaUnavailable as error:
                os._exit(7 if "after the fork" in str(error) else 8)
            os._exit(9)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), p.evaluate(b"{}", 1.0))
    """)
    assert printed == "7 300"


def test_the_threads_of_the_go_runtime_are_few() -> None:
    printed = run_script("""
        p = policy()
        work = lambda: [p.evaluate(b"{}", 5.0) for _ in range(300)]
        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print(len(os.listdir("/proc/self/task")))
    """)
    assert int(printed) <= 16


@pytest.mark.parametrize("setting", ["GODEBUG=gctrace=1", "GOGC=off", "GOMAXPROCS=64", "GOTRACEBACK=crash"])
def test_settings_of_go_in_the_environment_change_nothing(setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(*setting.split("=", 1))
    assert run_script("print(policy().evaluate(b'{}', 1.0))") == "300"


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def test_the_signal_module_still_delivers_to_python() -> None:
    seen = list[int]()
    before = signal.signal(signal.SIGUSR2, lambda number, _: seen.append(number))
    try:
        compiled("decision := 1").evaluate_here(b"{}", 1.0)
        os.kill(os.getpid(), signal.SIGUSR2)
        time.sleep(0.01)
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert seen == [signal.SIGUSR2]
