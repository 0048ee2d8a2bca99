"""OPA's command line in process: tests with coverage, fmt, capabilities, bundles and their signatures."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import tarfile
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from gateway.policy.engines.compiled_policy import PolicyRejected
from gateway.policy.engines.opa_tools import formatted, pure_capabilities, read_bundle, run_tests
from tests.support.opa_world import BINARY
from tests.support.paths import POLICIES

POLICY = ("p.rego", "package p\n\na if input.x > 1\n\nb := 1 if {\n\tinput.y\n\tinput.z\n}\n")
TESTS = (
    "p_test.rego",
    """package p_test

import data.p

test_a if p.a with input as {"x": 2}

test_b if {
	print("looking", 7)
	p.b == 1 with input as {"y": true}
}

todo_test_c if false

test_d if to_number("x") == 1
""",
)


def test_each_test_has_its_name_place_output_and_what_failed() -> None:
    results = {result.name: result for result in run_tests([POLICY, TESTS]).results}
    assert results["p_test.test_a"].passed
    failed = results["p_test.test_b"]
    assert (failed.passed, failed.file, failed.row, failed.output) == (False, "p_test.rego", 7, "looking 7\n")
    assert (failed.failed_row, failed.why) == (9, "line 9: p.b")
    assert results["p_test.todo_test_c"].skipped
    assert "invalid syntax" in results["p_test.test_d"].why


def test_a_pattern_chooses_tests_and_coverage_says_what_no_test_came_to() -> None:
    run = run_tests([POLICY, TESTS], pattern="test_a", coverage=True)
    assert [result.name for result in run.results] == ["p_test.test_a"]
    assert run.coverage is not None
    missed = {rows["start"]["row"] for rows in run.coverage["files"]["p.rego"]["not_covered"]}
    assert missed == {5, 6, 7}
    assert 0 < run.coverage["coverage"] < 100


def test_data_reach_the_tests_and_what_does_not_compile_is_refused() -> None:
    test = ("a_test.rego", "package a_test\n\ntest_x if data.x == 1\n")
    assert run_tests([test], b'{"x": 1}').results[0].passed
    with pytest.raises(PolicyRejected, match="unsafe"):
        run_tests([("a_test.rego", "package a_test\n\ntest_x if y == 1\n")])
    with pytest.raises(PolicyRejected, match="http.send"):
        run_tests([("a_test.rego", "package a_test\n\ntest_x if http.send({})\n")])


def test_a_module_is_written_as_opa_fmt_writes_it() -> None:
    assert formatted("a.rego", "package   a\nx   if{input.y\n}") == "package a\n\nx if input.y\n"
    with pytest.raises(PolicyRejected, match="a.rego:1"):
        formatted("a.rego", "package a x if {")


def test_the_starter_policies_are_formatted() -> None:
    for file in (POLICIES / "gateway").glob("*.rego"):
        assert formatted(file.name, file.read_text()) == file.read_text(), file.name


def test_the_capabilities_file_is_that_of_the_engine_and_has_nothing_impure() -> None:
    written = (POLICIES / "capabilities.json").read_text()
    assert written == pure_capabilities()
    document = json.loads(written)
    names = {builtin["name"] for builtin in document["builtins"]}
    impure = {
        "http.send",
        "opa.runtime",
        "rand.intn",
        "uuid.rfc4122",
        "time.now_ns",
        "net.lookup_ip_addr",
        "print",
        "trace",
    }
    assert names & impure == set()
    assert {"sprintf", "upper", "glob.match", "regex.match", "time.format", "io.jwt.verify_es256"} <= names
    assert not any(builtin.get("nondeterministic") for builtin in document["builtins"])
    assert document["allow_net"] == []


def archive(**files: str) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        for name, text in files.items():
            entry = tarfile.TarInfo(name.replace("_rego", ".rego").replace("_json", ".json"))
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
    return content.getvalue()


def test_a_bundle_is_read_and_one_that_is_cut_short_is_refused() -> None:
    whole = archive(a_rego="package a\n\nx := 1\n", data_json='{"y": [1]}')
    bundle = read_bundle(whole)
    assert (bundle.modules, bundle.data) == ((("a.rego", "package a\n\nx := 1\n"),), {"y": [1]})
    for broken in (whole[:-20], whole[:40], b"", b"PK\x03\x04", gzip.compress(b"no archive")):
        with pytest.raises(PolicyRejected):
            read_bundle(broken)
    with pytest.raises(PolicyRejected):
        read_bundle(archive(a_rego="package a\n\nx := {\n"))


def key_pair(folder: Path, name: str) -> str:
    """Write a private key for `opa`, and answer the public one."""
    key = ec.generate_private_key(ec.SECP256R1())
    (folder / name).write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def test_a_signature_must_be_there_and_be_made_by_the_right_key(tmp_path: Path) -> None:
    if not BINARY.exists():
        say = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        say("no OPA in .tools/opa (tests/tools.sh builds it where Go is)")
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.rego").write_text("package a\n\nx := 1\n")
    right, wrong = key_pair(tmp_path, "right.key"), key_pair(tmp_path, "wrong.key")
    command = [
        str(BINARY),
        "build",
        "-b",
        "in",
        "-o",
        "out.tar.gz",
        "--signing-key",
        "right.key",
        "--signing-alg",
        "ES256",
    ]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    signed = (tmp_path / "out.tar.gz").read_bytes()
    assert read_bundle(signed, {"k": (right, "ES256")}, key_id="k").modules[0][0] == "in/a.rego"
    for content, keys in (
        (signed, {"k": (wrong, "ES256")}),
        (signed, {"k": (right, "ES384")}),
        (archive(a_rego="package a\n\nx := 1\n"), {"k": (right, "ES256")}),
        (signed[:-30], {"k": (right, "ES256")}),
    ):
        with pytest.raises(PolicyRejected):
            read_bundle(content, keys, key_id="k")
