"""The runner of the measurements: groups do not depend on each other."""

import json
from functools import partial

import pytest

import bench.__main__ as runner
from bench import results
from bench.processes import BenchFailed


def _refused(say):
    raise BenchFailed("a request was refused: device_unknown")


@pytest.fixture
def groups(monkeypatch, tmp_path):
    path = tmp_path / "results.json"
    groups = {"edge": lambda say: {"full_vs_mitmdump": 2.5}, "scale": _refused, "login": lambda say: {"logins": 1}}
    monkeypatch.setattr(runner, "GROUPS", groups)
    monkeypatch.setattr(results, "write", partial(results.write, path=path))
    return path


def test_a_group_that_fails_costs_no_other_group_its_figures(groups, capsys):
    assert runner.main([]) == 1
    written = json.loads(groups.read_text())
    assert (written["full_vs_mitmdump"], written["logins"]) == (2.5, 1)
    assert "not measured: scale: a request was refused: device_unknown" in capsys.readouterr().out


def test_figures_are_written_before_the_next_group_begins(groups, monkeypatch):
    def interrupted(say):
        raise KeyboardInterrupt

    runner.GROUPS["scale"] = interrupted
    with pytest.raises(KeyboardInterrupt):
        runner.main([])
    assert json.loads(groups.read_text())["full_vs_mitmdump"] == 2.5


def test_a_group_alone_leaves_the_other_figures(groups):
    groups.write_text('{"full_vs_mitmdump": 1.9}')
    assert runner.main(["--only", "login"]) == 0
    assert json.loads(groups.read_text())["full_vs_mitmdump"] == 1.9


def test_a_group_has_a_world_of_its_own():
    folders = []

    def measure(world, say):
        folders.append((world.folder, world.device.exists()))
        return {}

    run = runner.in_world(measure)
    run(print)
    run(print)
    assert folders[0][0] != folders[1][0]
    assert [enrolled for _, enrolled in folders] == [True, True]
