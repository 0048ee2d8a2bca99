"""The policy bundle as a value."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.policy.bundle import input_paths as reads
from gateway.policy.engines import embedded as rego


class BundleError(ValueError):
    """One thing in a policy folder that cannot stand: where, what, and how to mend it. `line` 0 is the whole file."""

    def __init__(self, file: str, line: int, message: str, fix: str) -> None:
        super().__init__(f"{file}:{line}: {message}. {fix}" if line else f"{file}: {message}. {fix}")
        self.file = file
        self.line = line
        self.message = message
        self.fix = fix


@dataclass(frozen=True, slots=True)
class Bundle:
    """Checked policies and data; `version` is a short SHA-256 over all of it.

    `modules`: (path in the folder, source); `packages`: package path -> all its files as one module, which an OPA
    server takes in one step; `reads`: the parts of the input that the policies can read.
    """

    modules: tuple[rego.Module, ...]
    packages: Mapping[str, str] = field(repr=False)
    reads: tuple[reads.Path, ...]
    data: Mapping[str, Any] = field(repr=False)
    data_json: str = field(repr=False)
    version: str

    def export(self, folder: Path) -> None:
        """Write an OPA bundle directory, for an OPA that serves its own (`opa run --server --bundle folder`)."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, source in self.modules:
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(source, encoding="utf-8")
        (folder / "data.json").write_text(self.data_json, encoding="utf-8")
        (folder / ".manifest").write_text(json.dumps({"revision": self.version}), encoding="utf-8")
