"""Whether a file that the configuration names has changed, found by looking.

A look costs microseconds, and sees alike what was written in place, renamed over (editors, configuration management),
swapped as a link (Kubernetes) and changed on another machine (network mounts).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

Stamp = tuple[int, int, int] | None


def stamps(paths: Iterable[Path]) -> Mapping[str, Stamp]:
    """What tells each file from a changed one, None for one that is not there; of folders every file below."""
    return {name: _stamp(name) for path in paths for name in _files(path)}


def _files(path: Path) -> Iterator[str]:
    if not path.is_dir():
        yield os.fspath(path)
        return
    for folder, _, names in os.walk(path, followlinks=True):
        yield from (os.path.join(folder, name) for name in names)  # noqa: PTH118  (os.walk speaks in strings)


def _stamp(name: str) -> Stamp:
    try:
        found = os.stat(name)  # noqa: PTH116  (as above)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size
