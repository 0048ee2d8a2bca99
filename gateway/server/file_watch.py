"""File watch by polling: whether a file that the configuration names has changed.

A look costs microseconds, and sees alike what was written in place, renamed over (editors, configuration management),
swapped as a link (Kubernetes) and changed on another machine (network mounts). Folders have stamps as well: a file that
comes and goes between two looks may have been loaded, and leaves its trace in its folder alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

type Stamp = tuple[int, ...] | None


def stamps(paths: Iterable[Path]) -> Mapping[str, Stamp]:
    """The stamp of each file and folder, None where there is nothing; of a folder everything below as well."""
    return {name: _stamp(name) for path in paths for name in _files(path)}


def _files(path: Path) -> Iterator[str]:
    if not path.is_dir():
        yield os.fspath(path)
        return
    for folder, _, names in os.walk(path, followlinks=True):
        yield folder
        yield from (os.path.join(folder, name) for name in names)  # noqa: PTH118  (os.walk speaks in strings)


def _stamp(name: str) -> Stamp:
    try:
        status = os.stat(name)  # noqa: PTH116  (as above)
    except OSError:
        return None
    # The time of the last status change (st_ctime) shows a file that was renamed away and back.
    return status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_size
