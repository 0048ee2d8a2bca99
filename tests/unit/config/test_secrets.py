"""Secrets are read by reference and never shown."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest

from gateway.config import ConfigError, Secret, SecretText, resolve_secret


def test_a_secret_is_read_from_a_private_file_without_its_line_end(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("hunter2\n")
    file.chmod(0o600)
    assert resolve_secret(Secret(file=file)).reveal() == "hunter2"


def test_a_secret_is_read_from_the_environment() -> None:
    assert resolve_secret(Secret(env="T"), environ={"T": "hunter2"}).reveal() == "hunter2"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644, 0o601])
def test_a_file_that_others_may_use_is_refused_with_the_command_that_repairs_it(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "secret"
    file.write_text("hunter2")
    file.chmod(mode)
    problem = refusal(Secret(file=file))
    assert "chmod 600" in problem


@pytest.mark.parametrize("content", [b"", b" \n", b"\xff\xfe", b"x" * 70_000])
def test_an_empty_or_strange_file_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "secret"
    file.write_bytes(content)
    file.chmod(0o600)
    refusal(Secret(file=file))


def test_a_missing_place_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    places = (
        Secret(file=tmp_path / "none"),
        Secret(file=tmp_path),
        Secret(file=tmp_path / "pipe"),
        Secret(env="T"),
        Secret(),
        Secret(env="T", file=tmp_path),
    )
    for place in places:
        refusal(place)


def refusal(secret: Secret) -> str:
    with pytest.raises(ConfigError) as caught:
        resolve_secret(secret, environ={})
    assert "hunter2" not in str(caught.value)
    assert caught.value.problems[0].fix
    return caught.value.problems[0].fix


def test_a_secret_text_shows_nothing() -> None:
    text = SecretText("hunter2")
    assert "hunter2" not in f"{text} {text!r} {[text]}"
    with pytest.raises(TypeError):
        pickle.dumps(text)
