#!/usr/bin/env python3
"""Write docs/reasons.md from the table in gateway/core/reasons.py."""

from __future__ import annotations

from pathlib import Path

from gateway.core.reasons import REASONS, Reason

_HEAD = """# Reason codes

Every answer of the gateway names the facts behind it. The first reason of a refusal is in the `X-Gateway-Reason`
header, in the `reason` member of a JSON answer and on the page a person sees; the record has them all. A code is never
renamed. Policies may answer with codes of their own; those get status 403 and a general text.

This page is made from `gateway/core/reasons.py` by `python docs/make_reasons.py`.
"""


def _table(title: str, entries: list[Reason]) -> str:
    rows = [f"| `{entry.code}` | {entry.status} | {entry.what} | {entry.fix} |" for entry in sorted(entries, key=_code)]
    return "\n".join([f"## {title}", "", "| code | status | what | what to do |", "|---|---|---|---|", *rows]) + "\n"


def _code(entry: Reason) -> str:
    return entry.code


def page() -> str:
    """The whole page."""
    passes = [entry for entry in REASONS.values() if entry.status < 400]  # noqa: PLR2004 - HTTP's own border
    fails = [entry for entry in REASONS.values() if entry not in passes]
    return "\n".join([_HEAD, _table("Reasons to refuse", fails), _table("Reasons to let pass", passes)])


if __name__ == "__main__":
    Path(__file__).with_name("reasons.md").write_text(page(), encoding="utf-8")
