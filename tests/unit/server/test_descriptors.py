"""Limits and file descriptors: defaults shrink, written limits that do not fit are refused."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.config import ConfigError, Limits
from gateway.server.descriptors import are_exhausted, fit
from tests.support.paths import ROOT

PATH = Path("gateway.yaml")


def sizes(limits: Limits) -> tuple[int, int]:
    return limits.connections, limits.upstream_connections


def test_limits_that_fit_stay_as_they_are() -> None:
    limits = Limits()
    assert fit(limits, PATH, 100_000) is limits


def test_defaults_shrink_to_what_there_is() -> None:
    connections, upstreams = sizes(fit(Limits(), PATH, 20_000))
    assert connections + upstreams + 256 <= 20_000
    assert connections > 10_000
    assert upstreams > 4000
    assert sum(sizes(fit(Limits(), PATH, 1024))) == 1024 - 256


def test_a_default_shrinks_beside_a_written_limit() -> None:
    assert sizes(fit(Limits(connections=19_000), PATH, 20_000)) == (19_000, 744)


@pytest.mark.parametrize(
    "written",
    [{"connections": 19_744}, {"connections": 30_000}, {"upstream_connections": 25_000},
     {"connections": 12_000, "upstream_connections": 9_000}],
)  # fmt: skip
def test_written_limits_that_do_not_fit_are_refused_with_the_place_and_the_fix(written: dict[str, int]) -> None:
    with pytest.raises(ConfigError) as caught:
        fit(Limits(**written), PATH, 20_000)
    text = str(caught.value)
    assert f"limits.{next(iter(written))}" in text
    assert "20000" in text
    assert "LimitNOFILE" in text


def test_a_process_without_descriptors_says_so() -> None:
    assert not are_exhausted()
    code = (
        "import os, resource\n"
        "from gateway.server.descriptors import are_exhausted\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))\n"
        "opened = []\n"
        "try:\n"
        "    while True: opened.append(os.dup(0))\n"
        "except OSError: pass\n"
        "print(are_exhausted())\n"
        "os.close(opened.pop())\n"
        "print(are_exhausted())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == ["True", "False"]


def test_the_soft_limit_is_raised_to_the_hard_one() -> None:
    code = (
        "import resource\n"
        "from gateway.server.descriptors import raise_limit\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 512))\n"
        "print(raise_limit(), *resource.getrlimit(resource.RLIMIT_NOFILE))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == ["512", "512", "512"]
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[1] >= 512
