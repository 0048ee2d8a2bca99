"""Rego metadata annotations: what a policy says about itself, and the texts of its own reason codes.

# METADATA
# title: Exports end with the week
# custom:
#   reasons:
#     weekend_closed: {what: "Nothing is exported at the weekend.", fix: "Come back on Monday."}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.core.reasons import REASONS, Reason, is_code
from gateway.policy.bundle.model import BundleError

_MAX_TEXT = 300
_STATUS = 403
_FORM = 'Write `code: {what: "One sentence.", fix: "What to do."}`.'


@dataclass(frozen=True, slots=True)
class Annotation:
    """One METADATA block: what it is about (a reference below data), and its place."""

    about: str
    scope: str
    title: str
    description: str
    custom: Mapping[str, Any]
    file: str
    line: int


def annotations_of(raw: Sequence[Mapping[str, Any]]) -> tuple[Annotation, ...]:
    """From what OPA read (`CompiledPolicy.annotations`)."""
    return tuple(
        Annotation(
            entry["path"],
            entry["annotations"]["scope"],
            str(entry["annotations"].get("title", "")),
            " ".join(str(entry["annotations"].get("description", "")).split()),
            entry["annotations"].get("custom") or {},
            entry["file"],
            entry["row"],
        )
        for entry in raw
    )


def reason_texts(annotations: Sequence[Annotation]) -> tuple[Mapping[str, Reason], Sequence[BundleError]]:
    """The texts of the policies' own reason codes, and every problem with them.

    A code of the gateway's own keeps the gateway's text; a code may be described once.
    """
    texts: dict[str, Reason] = {}
    problems: list[BundleError] = []
    for annotation in annotations:
        reasons = annotation.custom.get("reasons", {})
        if not isinstance(reasons, Mapping):
            problems.append(BundleError(annotation.file, annotation.line, "custom.reasons is no mapping", _FORM))
            continue
        for code, text in reasons.items():
            wrong = list(_problems(code, text, texts))
            problems += [BundleError(annotation.file, annotation.line, *problem) for problem in wrong]
            if not wrong:
                texts[code] = Reason(code, _STATUS, text["what"], text.get("fix", ""))
    return texts, problems


def _problems(code: object, text: object, known: Mapping[str, Reason]) -> Iterator[tuple[str, str]]:
    if not is_code(code):
        yield f"{code!r} is no reason code", "Use lower case, digits and _, 2 to 64 characters."
    elif code in REASONS:
        yield f"the reason code {code} is the gateway's own", "Give the rule a code of its own."
    elif code in known:
        yield f"the reason code {code} is described twice", "Describe it at one rule."
    if not isinstance(text, Mapping) or not text.keys() <= {"what", "fix"} or not _is_text(text.get("what")):
        yield f"the text of {code} is out of shape", _FORM
    elif "fix" in text and not _is_text(text["fix"]):
        yield f"the fix of {code} is out of shape", _FORM


def _is_text(text: object) -> bool:
    return isinstance(text, str) and 0 < len(text) <= _MAX_TEXT and text.isprintable()
