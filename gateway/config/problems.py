"""What is wrong with a configuration: the place, the fact and the fix. No text here ever holds a secret's value."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

Loc = tuple[str | int, ...]
_SECRET = re.compile(r"secret|token|passw|credential|private|api_?key", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to repair. `line` and `column` count from 1; 0 means that it stands at no line of the file."""

    file: Path
    line: int
    column: int
    key: str
    message: str
    fix: str

    def __str__(self) -> str:
        """One line for logs and terminals."""
        place = f"{self.file}:{self.line}:{self.column}" if self.line else f"{self.file}"
        return f"{place}: {self.key + ': ' if self.key else ''}{self.message} {self.fix}".rstrip()


class ConfigError(Exception):
    """A configuration that cannot be used; `problems` says why, at least one, in the order of the file."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: Sequence[Problem] = tuple(sorted(problems, key=lambda found: (found.line, found.column)))
        super().__init__("\n".join(map(str, self.problems)))


def is_secret(loc: Loc) -> bool:
    """Whether a key at or above this place names a secret, so that nothing below it may be shown."""
    words = [part for number, part in enumerate(loc) if isinstance(part, str) and (number != 1 or loc[0] != "services")]
    return any(_SECRET.search(word) for word in words) or ("introspection" in words and "key" in words)


def dotted(loc: Loc) -> str:
    """A place as people write it: `services.wiki.paths["/admin"].methods[0]`; cut off below a secret."""
    text = ""
    for number, part in enumerate(loc):
        if isinstance(part, int):
            text += f"[{part}]"
        elif re.fullmatch(r"[\w-]+", part):
            text += f".{part}" if text else part
        else:
            text += f'["{part[:80]}"]'
        if is_secret(loc[: number + 1]):
            break
    return text
