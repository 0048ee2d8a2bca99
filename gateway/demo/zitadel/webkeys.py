"""Web keys of the emulated instance: initial, active, inactive, removed."""

from __future__ import annotations

from typing import Any

from gateway.demo.idp.token_issuer import Key, TokenIssuer
from gateway.demo.zitadel.wire import NOT_FOUND, PRECONDITION, ApiError, Call, Endpoint


class WebKeys:
    """Zitadel C13: rotation is an administrator's; the key set has the active, the initial and the inactive ones.

    The office's first key is the active one.
    """

    def __init__(self, office: TokenIssuer) -> None:
        self._office = office
        self._used = {office.keys[0].kid}

    def endpoints(self) -> list[Endpoint]:
        """The REST calls of the WebKey service."""
        return [
            Endpoint("POST", "/v2/web_keys", "write", self._create, 201),
            Endpoint("GET", "/v2/web_keys", "read", self._list),
            Endpoint("POST", "/v2/web_keys/{id}/_activate", "write", self._activate),
            Endpoint("DELETE", "/v2/web_keys/{id}", "write", self._delete),
        ]

    def _create(self, _: Call) -> dict[str, Any]:
        self._office.keys.append(Key())
        return {"id": self._office.keys[-1].kid}

    def _state(self, key: Key) -> str:
        if key is self._office.keys[0]:
            return "STATE_ACTIVE"
        return "STATE_INACTIVE" if key.kid in self._used else "STATE_INITIAL"

    def _list(self, _: Call) -> dict[str, Any]:
        self._used.add(self._office.keys[0].kid)
        return {"webKeys": [{"id": key.kid, "state": self._state(key), "rsa": {}} for key in self._office.keys]}

    def _activate(self, call: Call) -> dict[str, Any]:
        key, keys = self._key(call), self._office.keys
        self._used |= {keys[0].kid, key.kid}
        self._office.keys = [key, *(one for one in keys if one is not key)]
        return {}

    def _delete(self, call: Call) -> dict[str, Any]:
        key = self._key(call)
        if key is self._office.keys[0]:
            raise ApiError(PRECONDITION, "Errors.WebKey.ActiveDelete", "COMMAND-Chai1")
        # Zitadel C13: what a deleted key signed is no longer valid.
        self._office.keys = [one for one in self._office.keys if one is not key]
        return {}

    def _key(self, call: Call) -> Key:
        wanted = next((key for key in self._office.keys if key.kid == call.path["id"]), None)
        if wanted is None:
            raise ApiError(NOT_FOUND, "Errors.WebKey.NotFound", "COMMAND-teiG3")
        return wanted
