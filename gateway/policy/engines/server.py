"""The Open Policy Agent as engine, over its REST API. The only importer of `opa_client` (and of its `aiohttp`).

With a bundle, the bundle is pushed; without one, OPA serves its own and says which revision it answered with. Every
query asks for strict builtin errors, so that a failing builtin is `policy_error` here as it is in the embedded engine.

Law: nothing is decided by half of a bundle. A push first replaces all data and marks the server as being changed, in
one write; then it replaces the policies, reads all of it back, and only then sets the mark to the new version. Each
answer carries the mark it was made under (one query sees one state of OPA), and one without a version does not count.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import re
import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from opa_client.errors import DeletePolicyError, PolicyNotFoundError, RegoParseError  # type: ignore[import-untyped]
from opa_client.opa_async import AsyncOpaClient  # type: ignore[import-untyped]

from gateway.core.ports.pipeline import EngineFailure
from gateway.core.reasons import Reason
from gateway.observability import log
from gateway.policy.bundle.model import Bundle
from gateway.policy.contract import document_json
from gateway.policy.engines.compiled_policy import CompiledPolicy, PolicyRejected
from gateway.policy.engines.opa_library import library

_QUERY = {"strict-builtin-errors": True, "provenance": True}
_MARK = "gateway_bundle"
_SERVED_MODULE = {
    "gateway_served": f"package gateway_served\n\nversion := data.{_MARK}.version\n\n"
    "decision := data.gateway.authz.decision\n",
}
_SCAFFOLD = "gateway_scaffold_"
_PUSH_TIMEOUT_S = 15.0
_RETRY_S = 0.005
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*(?:/[A-Za-z0-9_-][A-Za-z0-9_.-]*)*")
_EVALUATION_FAILED = 500
_DEFAULT_PORTS = {"http": 80, "https": 443}


class _Client(AsyncOpaClient):  # type: ignore[misc]  # the library has no types
    """The library's client with a CA of our own, strict JSON, and no redirect to anywhere else."""

    def __init__(self, url: str, token: str | None, ca: Path | None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in _DEFAULT_PORTS or not parts.hostname or parts.path.strip("/") or parts.query:
            raise ValueError("the address of OPA is http(s)://host[:port]")
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        secure = parts.scheme == "https"
        port = parts.port or _DEFAULT_PORTS[parts.scheme]
        super().__init__(host=host, port=port, ssl=secure, token=token, retries=0, timeout=_PUSH_TIMEOUT_S)
        self._trust = ssl.create_default_context(cafile=ca) if secure else None

    async def _init_session(self) -> None:
        self._session = aiohttp.ClientSession(
            headers=self.headers,
            connector=aiohttp.TCPConnector(ssl=self._trust or True),
            timeout=aiohttp.ClientTimeout(total=self.timeout),
            json_serialize=document_json,
        )


class OpaEngine:
    """`PolicyEngine` over HTTP. Call `start` once before the first evaluation; without `push`, OPA serves its own."""

    in_process = False

    def __init__(
        self, bundle: Bundle, url: str, *, push: bool = True, token: str | None = None, ca: Path | None = None
    ) -> None:
        self._client = _Client(url, token, ca)
        self._bundle = bundle if push else None
        self._version = bundle.version if push else ""
        self._restoring: asyncio.Task[None] | None = None

    @property
    def version(self) -> str:
        """The digest of the pushed bundle, or the revision OPA last answered with, "" before that."""
        return self._version

    @property
    def reads(self) -> Sequence[tuple[str, ...]]:
        """What the pushed bundle can read; of a bundle that OPA serves by itself nothing is known."""
        return self._bundle.reads if self._bundle is not None else ((),)

    @property
    def reason_texts(self) -> Mapping[str, Reason]:
        """The texts of the pushed policies' own reason codes; an OPA with a bundle of its own tells none."""
        return self._bundle.reasons if self._bundle is not None else {}

    async def start(self) -> None:
        """Connect, and push the bundle if there is one. Raises `EngineFailure` `policy_unavailable`."""
        await self._client._init_session()  # noqa: SLF001  (a session that outlives one `async with`)
        if self._bundle is not None:
            await self._push(self._bundle)
        with contextlib.suppress(EngineFailure):
            body = await self._query({}, "system", "version")
            if (problem := _version_problem(body)) is not None:
                log.get("policy").warning("opa_version_differs", problem=problem)

    async def evaluate(self, document: Mapping[str, Any]) -> object:
        """The raw answer, None when undefined. Raises `EngineFailure`; the caller sets the deadline."""
        if self._bundle is None:
            body = await self._query(document, "gateway.authz", "decision")
            self._version = _revision(body) or self._version
            return body.get("result")
        while True:
            served = (await self._query(document, "gateway_served")).get("result")
            if not isinstance(served, dict) or "version" not in served:
                # OPA forgets what was pushed when it starts anew.
                self._restore(self._bundle)
                raise EngineFailure("policy_unavailable", "the OPA server has no bundle")
            if served["version"] is not None:
                return served.get("decision")
            await asyncio.sleep(_RETRY_S)

    async def close(self) -> None:
        """Close the connections."""
        if self._restoring is not None:
            self._restoring.cancel()
            await asyncio.gather(self._restoring, return_exceptions=True)
        await self._client.close_connection()

    async def _query(self, document: Mapping[str, Any], package: str, rule: str | None = None) -> dict[str, Any]:
        try:
            body = await self._client.query_rule(document, package, rule, _QUERY)
        except aiohttp.ServerDisconnectedError:
            # The server closed an idle connection at that moment; a query may be asked again.
            body = await self._again(document, package, rule)
        except _FAILURES as error:
            raise _failure(error) from None
        if not isinstance(body, dict):
            raise EngineFailure("policy_malformed", "the OPA server did not answer with an object")
        return body

    async def _again(self, document: Mapping[str, Any], package: str, rule: str | None) -> object:
        try:
            answer: object = await self._client.query_rule(document, package, rule, _QUERY)
        except _FAILURES as error:
            raise _failure(error) from None
        return answer

    def _restore(self, bundle: Bundle) -> None:
        if self._restoring is None or self._restoring.done():
            self._restoring = asyncio.create_task(self._push_again(bundle))

    async def _push_again(self, bundle: Bundle) -> None:
        try:
            await self._push(bundle)
        except EngineFailure:
            return  # the next request finds the server without a bundle, and tries once more

    async def _push(self, bundle: Bundle) -> None:
        try:
            modules = {_id(name): source for name, source in bundle.modules} | _SERVED_MODULE
            async with asyncio.timeout(_PUSH_TIMEOUT_S):
                if not await self._holds(bundle.version, modules):
                    await self._client.update_or_create_data({**bundle.data, _MARK: {"version": None}}, "")
                    await self._remove_all()
                    await self._within(bundle.policy.scaffold(), modules, partial(self._put, modules))
                    await self._client.update_or_create_data({"version": bundle.version}, _MARK)
                    if not await self._holds(bundle.version, modules):
                        raise EngineFailure("policy_unavailable", "the OPA server does not keep what was pushed")
        except (ValueError, *_REFUSALS) as error:
            raise EngineFailure("policy_unavailable", f"the bundle cannot be pushed: {_words(error)}") from None
        except _FAILURES as error:
            raise EngineFailure("policy_unavailable", type(error).__name__) from None

    async def _holds(self, version: str, modules: Mapping[str, str]) -> bool:
        """Whether the server has exactly these policies, and the mark of this version."""
        if set(await self._client.get_policies_list()) != modules.keys():
            return False
        for name, source in modules.items():
            if (await self._client.get_policy(name))["result"].get("raw") != source:
                return False
        served = await self._client.query_rule({}, "gateway_served", "version")
        return bool(served.get("result") == version)

    async def _remove_all(self) -> None:
        """Delete every policy of the server, whoever put it there."""
        names = await self._client.get_policies_list()
        present = [(name, (await self._client.get_policy(name))["result"].get("raw") or "") for name in names]
        try:
            scaffold = CompiledPolicy.load(present, impure=True).scaffold()
        except PolicyRejected:
            scaffold = ()
        await self._within(scaffold, names, self._client.delete_policy)

    async def _within(
        self, scaffold: Sequence[str], names: Iterable[str], act: Callable[[str], Awaitable[object]]
    ) -> None:
        """Act on each; where the server refuses them one by one, while a scaffold declares every rule."""
        own = [name for name in names if not name.startswith(_SCAFFOLD)]
        modules = {f"{_SCAFFOLD}{number}": text for number, text in enumerate(scaffold)}
        try:
            await self._settle(own, act)
        except _REFUSALS:
            await self._settle(modules, partial(self._put, modules))
            present = set(await self._client.get_policies_list())
            removing = act == self._client.delete_policy
            await self._settle([name for name in own if not removing or name in present], act)
        left = [name for name in await self._client.get_policies_list() if name.startswith(_SCAFFOLD)]
        await self._settle(left, self._client.delete_policy)

    async def _put(self, modules: Mapping[str, str], name: str) -> None:
        await self._client.update_policy_from_string(modules[name], name, rego_compat=False)

    @staticmethod
    async def _settle(names: Iterable[str], act: Callable[[str], Awaitable[object]]) -> None:
        """Act on each, in whatever order the server accepts: it refuses a module before (or after) those it uses."""
        waiting = list(names)
        while waiting:
            refused: list[str] = []
            failure: Exception | None = None
            for name in waiting:
                try:
                    await act(name)
                except _REFUSALS as error:
                    refused.append(name)
                    failure = error
            if failure is not None and len(refused) == len(waiting):
                raise failure
            waiting = refused


_REFUSALS = (RegoParseError, DeletePolicyError, PolicyNotFoundError)
_FAILURES = (aiohttp.ClientError, OSError, json.JSONDecodeError, UnicodeDecodeError)


def _id(name: str) -> str:
    """A module's name in a URL: its own where that can stand there, else a digest."""
    return name if _PLAIN_NAME.fullmatch(name) else hashlib.sha256(name.encode()).hexdigest()


def _version_problem(body: Mapping[str, Any]) -> str | None:
    """What differs between this server and the OPA that has checked the policies, None when nothing does."""
    provenance = body.get("provenance")
    version = provenance.get("version") if isinstance(provenance, dict) else None
    wanted = library().opa_version
    if version == wanted:
        return None
    return f"the server is OPA {version or 'of an unknown version'}, and the policies were checked by OPA {wanted}"


def _failure(error: Exception) -> EngineFailure:
    if isinstance(error, (aiohttp.ContentTypeError, json.JSONDecodeError, UnicodeDecodeError)):
        return EngineFailure("policy_malformed", "the OPA server did not answer with JSON")
    if isinstance(error, aiohttp.ClientResponseError):
        failed = error.status == _EVALUATION_FAILED
        return EngineFailure("policy_error" if failed else "policy_unavailable", f"OPA answered {error.status}")
    if isinstance(error, TimeoutError):
        return EngineFailure("policy_timeout")
    return EngineFailure("policy_unavailable", type(error).__name__)


def _words(error: Exception) -> str:
    """What the server says about a module it refuses."""
    details = getattr(error, "errors", None) or [{}]
    text = details[0].get("message") or getattr(error, "message", None) or str(error)
    return str(text).partition("\n")[0]


def _revision(body: Mapping[str, Any]) -> str:
    """The revisions of the bundles OPA answered with."""
    provenance = body.get("provenance")
    bundles = provenance.get("bundles") if isinstance(provenance, dict) else None
    if not isinstance(bundles, dict):
        return ""
    return ",".join(str(entry.get("revision", "")) for _, entry in sorted(bundles.items()) if isinstance(entry, dict))
