"""What the emulated instance sends out: posts from a thread of their own, and the deny list that may stop them."""

from __future__ import annotations

import ipaddress
import ssl
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx

from gateway.demo.zitadel.switches import Switches

_LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Sent:
    """One attempt. `status` None: no answer in time."""

    url: str
    status: int | None


class Courier:
    """Posts in the background. `sent` lists every attempt; `idle` waits until there is nothing more to send.

    Names below .localhost are 127.0.0.1. `context` is how https receivers are known; None is the system's way.
    """

    def __init__(self, switches: Switches, context: ssl.SSLContext | None = None) -> None:
        self.sent: list[Sent] = []
        self.context = context
        self._switches = switches
        # Zitadel C12: one worker delivers events; back-channel logouts have workers of their own.
        self._pools = {"hook": ThreadPoolExecutor(1), "logout": ThreadPoolExecutor(4)}
        self._running: set[Future[None]] = set()

    def later(self, kind: str, work: Callable[[], None]) -> None:
        """Do `work` soon. Kinds: "hook" (in order), "logout"."""
        if self._switches.deliver_nothing:
            return
        for _ in range(2 if self._switches.deliver_twice else 1):
            future = self._pools[kind].submit(self._run, work)
            self._running.add(future)
            future.add_done_callback(self._running.discard)

    def _run(self, work: Callable[[], None]) -> None:
        time.sleep(self._switches.deliver_late_s)
        work()

    def post(self, url: str, body: bytes, headers: Mapping[str, str], timeout_s: float) -> int | None:
        """One attempt; the status, None for no answer in time."""
        status: int | None = None
        parts = urlsplit(url)
        host = parts.hostname or ""
        target = url
        if host.endswith(".localhost"):
            target = parts._replace(netloc=_LOOPBACK + (f":{parts.port}" if parts.port else "")).geturl()
        try:
            with httpx.Client(verify=self.context or True, trust_env=False, timeout=timeout_s) as client:
                sent = {**headers, "host": parts.netloc}
                answer = client.post(target, content=body, headers=sent, extensions={"sni_hostname": host})
                status = answer.status_code
        except (httpx.HTTPError, OSError, ValueError):
            status = None
        self.sent.append(Sent(url, status))
        return status

    def denies(self, url: str) -> bool:
        """Zitadel C15: private, loopback and link-local addresses are on HTTPClient.DenyList; checked when saved."""
        if not self._switches.deny_list:
            return False
        host = urlsplit(url).hostname or ""
        if host == "localhost" or host.endswith(".localhost"):
            return True
        try:
            return not ipaddress.ip_address(host).is_global
        except ValueError:
            return False

    def idle(self, timeout_s: float = 10.0) -> bool:
        """Whether everything was sent within the time."""
        return not wait(set(self._running), timeout_s).not_done

    def close(self) -> None:
        """Stop; what waits is dropped."""
        for pool in self._pools.values():
            pool.shutdown(wait=True, cancel_futures=True)
