"""The fixtures of the token tests."""

from __future__ import annotations

from tests.support.issuer_world import (
    clock,
    directory,
    http,
    key,
    other_key,
    provider,
    reading,
    served,
    static,
    static_reading,
)

__all__ = [
    "clock",
    "directory",
    "http",
    "key",
    "other_key",
    "provider",
    "reading",
    "served",
    "static",
    "static_reading",
]
