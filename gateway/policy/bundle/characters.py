"""Characters that make a source file read as something else than what it is (CVE-2021-42574, "Trojan Source").

Bidirectional controls change the order in which an editor shows a line. Line separators other than the line feed end a
line for some readers and not for OPA, so a comment would show as policy. Neither may stand in a policy file; a string
says them by an escape.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from gateway.policy.bundle.model import BundleError

_BIDI = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_BREAKS = re.compile("[\v\f\x1c-\x1e\x85\u2028\u2029]|\r(?!\n)")


def misleading_characters(name: str, source: str) -> Iterator[BundleError]:
    """The first bidirectional control and the first foreign line separator of a module, each with its place."""
    for pattern, kind in ((_BIDI, "a bidirectional control"), (_BREAKS, "a line separator")):
        if character := pattern.search(source):
            before = source[: character.start()]
            line, column = before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1
            escape = f"\\u{ord(character[0]):04x}"
            message = f"U+{ord(character[0]):04X} is {kind}: the file does not read as it is"
            fix = f"Remove it; in a string write {escape}."
            yield BundleError(name, line, message, fix, column=column, width=1, code="misleading_character")
