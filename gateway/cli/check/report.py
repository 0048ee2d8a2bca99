"""`gateway check`: the configuration and everything it names, each finding with its line and its fix."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.cli.check import files as check_files
from gateway.cli.check import network as check_network
from gateway.cli.check import store as check_store
from gateway.cli.check.files import Finding
from gateway.cli.check.policies import policies
from gateway.config import Config, ConfigError, Problem, read


@dataclass(frozen=True, slots=True)
class Report:
    """What was found, in the order of the file. The gateway would not work as meant with any of `problems`."""

    problems: Sequence[Problem]
    warnings: Sequence[Problem]


async def examine(
    path: Path,
    *,
    offline: bool = False,
    environ: Mapping[str, str] | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Report:
    """Look at everything; `offline` leaves out whatever needs the network. `progress` hears the name of each step."""
    progress("configuration")
    try:
        loaded = read(path, environ=environ)
    except ConfigError as error:
        return Report(error.problems, ())
    config = loaded.config
    problems: list[Problem] = []
    warnings: list[Problem] = []

    def keep(found: Iterable[Finding]) -> None:
        for finding in found:
            problem = loaded.document.problem(finding.place, finding.message, finding.fix)
            (warnings if finding.is_warning else problems).append(problem)

    now = time.time()
    local: dict[str, Callable[[], Iterable[Finding]]] = {
        "access": lambda: check_files.access(config),
        "secrets": lambda: check_files.secrets(config, now),
        "certificates": lambda: check_files.certificates(config, now),
        "device PKI": lambda: check_files.device_pki(config, now),
        "risk": lambda: check_files.risk(config),
        "state": lambda: check_files.folders(config),
    }
    for name, look in local.items():
        progress(name)
        keep(look())
    progress("policies")
    wrong, doubtful = policies(loaded)
    problems += wrong
    warnings += doubtful
    remote: dict[str, Callable[[Config], Awaitable[Sequence[Finding]]]] = {
        "upstreams": check_network.upstreams,
        "issuers": check_network.issuers,
        "OPA": check_network.opa,
        "store": check_store.store,
    }
    for name, ask in () if offline else remote.items():
        progress(name)
        keep(await ask(config))
    return Report(_in_order(problems), _in_order(warnings))


def _in_order(found: Iterable[Problem]) -> Sequence[Problem]:
    return sorted(found, key=lambda problem: (str(problem.file), problem.line, problem.column))
