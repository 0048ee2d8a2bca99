"""The policy bundle as a value."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.core.reasons import Reason
from gateway.policy.engines.compiled_policy import CompiledPolicy, Module


class BundleError(ValueError):
    """One thing in a policy folder that cannot stand: where, what, and how to mend it.

    `line` and `column` count from 1; line 0 is the whole file. `width` is how far the caret reaches; `code` is OPA's.
    """

    def __init__(
        self, file: str, line: int, message: str, fix: str, *, column: int = 0, width: int = 0, code: str = ""
    ) -> None:
        super().__init__(f"{file}:{line}: {message}. {fix}" if line else f"{file}: {message}. {fix}")
        self.file = file
        self.line = line
        self.message = message
        self.fix = fix
        self.column = column
        self.width = width
        self.code = code


@dataclass(frozen=True, slots=True)
class Bundle:
    """Compiled policies and their data; `version` is a short SHA-256 over all of it.

    `modules`: (path in the folder, source); `data_json`: the whole data document as JSON; `reasons`: the texts of the
    policies' own reason codes.
    """

    modules: tuple[Module, ...]
    data_json: bytes = field(repr=False)
    version: str
    policy: CompiledPolicy = field(repr=False, compare=False)
    reasons: Mapping[str, Reason] = field(default_factory=dict, repr=False)

    @property
    def reads(self) -> Sequence[tuple[str, ...]]:
        """The parts of the input that the policies can read."""
        return self.policy.reads

    @property
    def data(self) -> Mapping[str, Any]:
        """The data document, read anew at each call."""
        document: Mapping[str, Any] = json.loads(self.data_json)
        return document

    def export(self, folder: Path) -> None:
        """Write an OPA bundle directory, for an OPA that serves its own (`opa run --server --bundle folder`)."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, source in self.modules:
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(source, encoding="utf-8")
        (folder / "data.json").write_bytes(self.data_json)
        (folder / ".manifest").write_text(json.dumps({"revision": self.version}), encoding="utf-8")

    def close(self) -> None:
        """Free the compiled policies."""
        self.policy.close()
