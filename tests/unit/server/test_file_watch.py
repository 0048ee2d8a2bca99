from __future__ import annotations

import os
from pathlib import Path

from gateway.server.file_watch import stamps


def test_a_folder_is_everything_below_and_a_missing_file_is_none(tmp_path: Path) -> None:
    (tmp_path / "rules" / "deep").mkdir(parents=True)
    (tmp_path / "rules" / "deep" / "a.rego").write_text("a")
    folder, file, missing = tmp_path / "rules", tmp_path / "rules/deep/a.rego", tmp_path / "gone"
    found = stamps([folder, missing])
    assert found.keys() == {os.fspath(path) for path in (folder, folder / "deep", file, missing)}
    assert found[os.fspath(missing)] is None


def test_every_way_to_change_a_file_is_seen(tmp_path: Path) -> None:
    file, other = tmp_path / "a", tmp_path / "b"
    file.write_text("one")
    seen = [stamps([file])]

    def look() -> None:
        seen.append(stamps([file]))
        assert seen[-1] not in seen[:-1]

    file.write_text("three")
    look()
    other.write_text("three")
    other.replace(file)
    look()
    file.unlink()
    look()
    target = tmp_path / "c"
    target.write_text("four")
    file.symlink_to(target)
    look()


def test_what_came_and_went_between_two_looks_is_seen(tmp_path: Path) -> None:
    os.utime(tmp_path, ns=(1, 1))
    before = stamps([tmp_path])
    (tmp_path / "closed.rego").write_text("package x")
    (tmp_path / "closed.rego").unlink()
    assert stamps([tmp_path]) != before


def test_a_file_that_was_renamed_away_and_back_is_seen(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text("one")
    before = stamps([file])
    until_the_clock_ticks(tmp_path / "clock")
    file.rename(tmp_path / "aside")
    (tmp_path / "aside").rename(file)
    assert stamps([file]) != before


def until_the_clock_ticks(file: Path) -> None:
    """Wait for the next time that the file system would write: it counts in steps of milliseconds."""
    file.write_text("")
    begun = file.stat().st_ctime_ns
    while file.stat().st_ctime_ns == begun:
        file.chmod(0o600)
