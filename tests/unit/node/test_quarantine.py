import json
from pathlib import Path
from typing import Any

import pytest

from gateway.node.quarantine import Quarantine


def reason_of(quarantine: Quarantine) -> str:
    refusal = quarantine.check()
    return "" if refusal is None else refusal.reason


class Clock:
    now = 0.0

    def __call__(self) -> Any:
        return self.now


def test_a_node_without_a_flag_goes_on(tmp_path: Any) -> None:
    assert Quarantine(tmp_path).check() is None


def test_a_flag_takes_the_node_out_and_the_first_reason_stays(tmp_path: Any) -> None:
    quarantine = Quarantine(tmp_path)
    assert quarantine.check() is None
    quarantine.flag("a changed file")
    quarantine.flag("another")
    assert reason_of(quarantine) == "node_quarantined"
    assert quarantine.why() == "a changed file"
    assert (tmp_path / "quarantine").stat().st_mode & 0o777 == 0o600


def test_another_worker_sees_the_flag_within_a_quarter_of_a_second(tmp_path: Any) -> None:
    clock = Clock()
    worker = Quarantine(tmp_path, clock)
    assert worker.check() is None
    Quarantine(tmp_path).flag("x")
    clock.now = 0.2
    assert worker.check() is None
    clock.now = 0.25
    assert worker.check() is not None


def test_a_cleared_node_goes_on_again(tmp_path: Any) -> None:
    quarantine = Quarantine(tmp_path)
    quarantine.flag("x")
    quarantine.clear()
    quarantine.clear()
    assert quarantine.check() is None
    assert quarantine.why() == ""


def test_a_missing_state_folder_counts_as_quarantined(tmp_path: Any) -> None:
    assert reason_of(Quarantine(tmp_path / "gone")) == "node_quarantined"


def test_a_folder_that_cannot_be_looked_into_counts_as_quarantined(tmp_path: Any, monkeypatch: Any) -> None:
    def refuse(*_args: Any, **_kwargs: Any) -> None:
        raise PermissionError

    quarantine = Quarantine(tmp_path)
    monkeypatch.setattr(Path, "lstat", refuse)
    assert reason_of(quarantine) == "node_quarantined"


def test_a_dangling_link_or_a_folder_as_flag_counts_as_quarantined(tmp_path: Any) -> None:
    (tmp_path / "quarantine").symlink_to(tmp_path / "nowhere")
    assert Quarantine(tmp_path).check() is not None


def test_a_garbled_flag_still_counts(tmp_path: Any) -> None:
    for content in ("", "not json", json.dumps([1])):
        (tmp_path / "quarantine").write_text(content)
        quarantine = Quarantine(tmp_path)
        assert quarantine.check() is not None
        assert quarantine.why() == "unknown"


def test_a_flag_that_cannot_be_set_raises(tmp_path: Any) -> None:
    with pytest.raises(OSError):  # noqa: PT011 - the kernel's words
        Quarantine(tmp_path / "gone").flag("x")
