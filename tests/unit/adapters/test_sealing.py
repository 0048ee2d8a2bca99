from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.adapters.sealing import Seal, read_or_make_master_key

SEAL = Seal(bytes(range(32)))


@given(st.text(), st.text(), st.binary())
def test_what_was_sealed_opens(purpose: str, name: str, value: bytes) -> None:
    assert SEAL.unseal(purpose, name, SEAL.seal(purpose, name, value)) == value


@given(st.integers(0, 32), st.integers(1, 255))
def test_one_changed_byte_anywhere_does_not_open(at: int, flip: int) -> None:
    sealed = bytearray(SEAL.seal("p", "n", b"abcd"))
    sealed[at] ^= flip
    with pytest.raises(ValueError, match="sealed value"):
        SEAL.unseal("p", "n", bytes(sealed))


@given(st.binary(max_size=64))
def test_garbage_does_not_open(sealed: bytes) -> None:
    with pytest.raises(ValueError, match=r"sealed value|[Nn]once"):
        SEAL.unseal("p", "n", sealed)


@pytest.mark.parametrize(("purpose", "name"), [("p", "m"), ("q", "n"), ("pn", ""), ("", "pn")])
def test_a_value_belongs_to_its_purpose_and_name(purpose: str, name: str) -> None:
    with pytest.raises(ValueError, match="does not open"):
        SEAL.unseal(purpose, name, SEAL.seal("p", "n", b"value"))


def test_equal_values_are_sealed_differently() -> None:
    assert SEAL.seal("p", "n", b"value") != SEAL.seal("p", "n", b"value")


def test_a_master_key_is_made_once_and_for_the_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "state" / "master.key"
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(lambda _: read_or_make_master_key(path), range(16)))
    assert len(keys) == 1
    assert len(keys.pop()) == 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in path.parent.iterdir()] == ["master.key"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_master_key_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "master.key"
    read_or_make_master_key(path)
    path.chmod(mode)
    with pytest.raises(ValueError, match="chmod 600"):
        read_or_make_master_key(path)


@pytest.mark.parametrize("content", [b"", b"x" * 31, b"x" * 33])
def test_a_master_key_of_another_length_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "master.key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ValueError, match="32 bytes"):
        read_or_make_master_key(path)
