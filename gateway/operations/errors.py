"""What an operation raises when it cannot be done."""

from __future__ import annotations


class ActionFailed(Exception):
    """Something the operator asked for cannot be done; `fix` says what would help."""

    def __init__(self, message: str, fix: str = "") -> None:
        super().__init__(message)
        self.fix = fix
