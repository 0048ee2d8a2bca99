"""Secrets by reference: read when they are needed, never shown."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from gateway.config.models import Secret
from gateway.config.problems import ConfigError, Problem

_LIMIT_BYTES = 65_536
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


class SecretText:
    """A secret's text. Only `reveal` gives it; printing, formatting, logging and pickling do not."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself."""
        return self._text

    def __repr__(self) -> str:
        return "SecretText()"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not pickled")


def resolve_secret(secret: Secret, *, environ: Mapping[str, str] | None = None) -> SecretText:
    """Read a secret from its file or environment variable; white space around it is dropped.

    Raises `ConfigError` when it is missing, empty, or in a file that the group or others may use.
    """
    if secret.env is not None and secret.file is None:
        text = (os.environ if environ is None else environ).get(secret.env, "").strip()
        if not text:
            _refuse(Path(), secret.env, "The environment variable is not set.", f"Set {secret.env}.")
        return SecretText(text)
    if secret.file is None or secret.env is not None:
        _refuse(Path(), "", "A secret has exactly one place.", "Write either `file` or `env`.")
    return SecretText(_from_file(secret.file))


def _from_file(path: Path) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:  # noqa: PTH123 (the mode is judged on the file that is read)
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                _refuse(path, "", "The secret's place is no file.", "Name a file.")
            if status.st_mode & _OTHERS:
                _refuse(path, "", "Others can use the secret's file.", f"Run `chmod 600 {path}`.")
            data = file.read(_LIMIT_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "bad name"
        _refuse(path, "", f"The secret cannot be read ({reason}).", "Write it to this file, with mode 0600.")
    if len(data) > _LIMIT_BYTES:
        _refuse(path, "", "The secret is larger than 64 KiB.", "Name the right file.")
    try:
        text = data.decode("utf-8").strip()
    except UnicodeDecodeError:
        text = ""
    if not text:
        _refuse(path, "", "The secret is empty or no text.", "Write the secret's text to this file.")
    return text


def _refuse(file: Path, key: str, message: str, fix: str) -> NoReturn:
    raise ConfigError([Problem(file, 0, 0, key, message, fix)])
