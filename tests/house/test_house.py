"""The house holds itself: layers, sizes, one importer for each library, documents that are complete."""

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.core.ports.documents import Documents
from gateway.core.ports.stores import Store
from tests.support.paths import ROOT

SOURCES = sorted([*ROOT.glob("gateway/**/*.py"), *ROOT.glob("plugins/**/*.py")])
STDLIB = sys.stdlib_module_names
# Tools of the language rather than systems: they may be used where they are needed.
SHARED = {"cryptography", "mitmproxy", "pydantic", "pydantic_core", "typing_extensions", "OpenSSL", "h11", "wsproto"}
# Commands and the demo world stand outside the data path.
OUTSIDE = ("gateway/cli/", "gateway/operations/", "gateway/agent/", "gateway/demo/")


def imports(path: Path) -> set[str]:
    libraries = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            libraries |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            libraries.add(node.module.partition(".")[0])
    return libraries


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_imports_go_one_way() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports"))], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_library_is_imported_by_one_module() -> None:
    importers: dict[str, list[str]] = {}
    for path in SOURCES:
        if name_of(path).startswith(OUTSIDE):
            continue
        for library in imports(path) - STDLIB - SHARED - {"gateway", "plugins"}:
            importers.setdefault(library, []).append(name_of(path))
    assert {name: found for name, found in importers.items() if len(found) > 1} == {}


def test_the_core_is_pure() -> None:
    impure = {"time", "random", "secrets", "os", "socket", "asyncio", "pathlib", "subprocess", "threading"}
    for path in ROOT.glob("gateway/core/**/*.py"):
        found = imports(path)
        assert found - STDLIB - {"gateway"} == set(), name_of(path)
        assert found & impure == set(), name_of(path)


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_there_is_no_logic_in_an_assert(path: Path) -> None:
    asserts = [
        node.lineno for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Assert)
    ]
    assert asserts == []


def test_no_record_is_rewritten_whole() -> None:
    """A device record is added, or changed as it is; a document is written over the version that was read.

    The ports offer nothing else: what is written whatever is there (`overwrite`) is listed here with its reason.
    """
    known = {
        # Marks: the value follows from the key.
        "gateway/identity/sessions/login_sessions.py": 4,  # and a session's end, after twenty versions went by
        "gateway/identity/ssf/receiver.py": 1,
        "gateway/identity/zitadel/webhooks.py": 2,
        "gateway/identity/reactions.py": 1,
        # Done, whatever it was before.
        "gateway/identity/oidc/backchannel_logout.py": 1,
        # The latest proof of a session; nothing of the one before is in it.
        "gateway/identity/account/step_up.py": 1,
        # A cache in front of the real documents.
        "gateway/adapters/stale_reads.py": 1,
    }
    counts: dict[str, int] = {}
    for path in SOURCES:
        count = path.read_text(encoding="utf-8").count(".overwrite(")
        if count:
            counts[name_of(path)] = count
    assert {name: count for name, count in counts.items() if count > known.get(name, 0)} == {}
    version = inspect.signature(Documents.put).parameters["version"]
    assert (version.kind, version.default, version.annotation) == (version.KEYWORD_ONLY, version.empty, "int")
    whole = {
        name
        for name, method in inspect.getmembers(Store, inspect.isfunction)
        if {"DeviceRecord", "SessionRecord", "Document"}
        & {p.annotation for p in inspect.signature(method).parameters.values()}
    }
    # `put_session` inserts, or moves the times of its last use and end forward: store_conformance holds both to it.
    assert whole == {"add_device", "put_session"}


def test_compare_and_set_and_leases_are_written_once() -> None:
    """Outside gateway/state a document is put where nothing is (`version=0`), and no loop goes round a `put`."""
    wrong = []
    for path in SOURCES:
        if name_of(path).startswith(("gateway/state/", "gateway/adapters/")):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and ast.unparse(node.func).endswith("ocuments.put")):
                continue
            versions = [ast.unparse(keyword.value) for keyword in node.keywords if keyword.arg == "version"]
            if versions != ["0"]:
                wrong.append(f"{name_of(path)}:{node.lineno}")
    assert wrong == []


def test_every_lock_entry_has_a_hash() -> None:
    for lock in ("requirements.lock", "requirements-dev.lock"):
        text = (ROOT / lock).read_text(encoding="utf-8")
        pins = re.findall(r"^[a-z0-9].*==", text, re.MULTILINE)
        assert len(pins) > 20
        assert text.count("--hash=sha256:") >= len(pins)
        assert "http://" not in text
        assert "https://" not in text


def test_no_key_and_no_certificate_is_committed() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    assert [name for name in tracked if name.endswith((".pem", ".key", ".crt", ".p12", ".sqlite"))] == []
    marker = "-----BEGIN " + "PRIVATE KEY-----"
    for name in filter(None, tracked):
        path = ROOT / name
        if path.is_file() and path.stat().st_size < 1 << 20:
            assert marker not in path.read_text(encoding="utf-8", errors="ignore"), name


def test_each_behaviour_of_the_emulator_names_its_line_of_the_contract() -> None:
    contract = (ROOT / "gateway/demo/zitadel/__init__.py").read_text(encoding="utf-8")
    known = set(re.findall(r"^(C[0-9]+) ", contract, re.MULTILINE))
    sources = [path for path in SOURCES if "gateway/demo/" in name_of(path) and path.name != "__init__.py"]
    text = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    assert re.findall(r"Zitadel: .*", text) == []
    assert set(re.findall(r"Zitadel (C[0-9]+): ", text)) == known


CLOCKS = re.compile(r"\btime\.(?:time|monotonic)\(\)|\b(?:now|utcnow|today)\(")


def test_no_test_module_reads_the_clock_when_it_is_imported() -> None:
    readers = set()
    for path in sorted(ROOT.glob("tests/**/*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign | ast.AnnAssign) and node.value and CLOCKS.search(ast.unparse(node.value)):
                readers.add(name_of(path))
    # What it gives is an hour old already, so that nothing hangs on how long a run takes.
    assert readers == {"tests/support/clock.py"}


def test_no_test_measures_speed_by_the_clock() -> None:
    """A busy machine is no slower program: `tests.support.cost` compares processor time, `make bench` gives figures."""
    clocks = ("perf_" + "counter", "process_time_" + "ns")
    assert [
        path.relative_to(ROOT).as_posix()
        for path in sorted(ROOT.glob("tests/**/*.py"))
        if any(clock in path.read_text(encoding="utf-8") for clock in clocks)
    ] == []
