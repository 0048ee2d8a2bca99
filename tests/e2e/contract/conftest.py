"""The providers of the contract tests, each started once; and what hears of logouts."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack

import pytest

from tests.support.contract_gateway import Logouts
from tests.support.contract_providers import ZITADEL, Provider, Zitadel, emulator, emulator_by_api, need_panva, panva

PROVIDERS = ["emulator", "emulator-by-api", "oidc-provider-jwt", "oidc-provider-opaque"]
if all(ZITADEL):
    PROVIDERS.append("zitadel")


@pytest.fixture(scope="session")
def listening() -> Iterator[Logouts]:
    with Logouts() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def logouts(listening: Logouts) -> Logouts:
    while not listening.tokens.empty():
        listening.tokens.get()
    return listening


@pytest.fixture(scope="session")
def started(listening: Logouts) -> Iterator[Callable[[str], Provider]]:
    """The provider of this name, started when it is first asked for."""
    running: dict[str, Provider] = {}
    with ExitStack() as stack:

        def start(name: str) -> Provider:
            if name not in running:
                running[name] = _real_zitadel(listening) if name == "zitadel" else stack.enter_context(_block(name))
                stack.callback(running[name].close)
            return running[name]

        def _block(name: str) -> AbstractContextManager[Provider]:
            if name.startswith("oidc-provider"):
                need_panva()
                return panva(name.removeprefix("oidc-provider-"), listening.url())
            return (emulator if name == "emulator" else emulator_by_api)(listening.url())

        yield start


def _real_zitadel(listening: Logouts) -> Provider:
    url, token = ZITADEL
    # The name under which that instance reaches this machine; without it nothing is heard of logouts.
    reaches = os.environ.get("ZITADEL_REACHES_US", "")
    return Zitadel(url.rstrip("/"), token, listening.url(reaches) if reaches else "")


@pytest.fixture(params=PROVIDERS)
def provider(request: pytest.FixtureRequest, started: Callable[[str], Provider]) -> Provider:
    found = started(request.param)
    found.forget()
    return found
