from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest


def _processes_in(folder: Path) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if process.joinpath("cwd").readlink().is_relative_to(folder):
                found.append(process.name)
        except OSError:
            continue
    return found


@pytest.mark.timeout(180)
@pytest.mark.xdist_group("processes")
def test_every_step_of_the_demo_passes_and_nothing_is_left_behind(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "demo"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        timeout=150,
        check=False,
    )
    lines = done.stdout.splitlines()
    failed = [line for line in lines if not line.startswith("ok ")]
    assert done.returncode == 0, "\n".join(failed) + done.stderr
    last = re.fullmatch(r"demo: (\d+) passed, 0 failed", lines[-1])
    assert last is not None
    assert int(last[1]) == sum(line.startswith("ok ") for line in lines) >= 30
    assert list(tmp_path.iterdir()) == []
    assert _processes_in(tmp_path) == []
