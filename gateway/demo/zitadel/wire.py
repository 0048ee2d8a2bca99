"""How the emulated instance answers API calls: protojson, errors as gRPC tells them, personal access tokens."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

_CONNECT = re.compile(r"\A/zitadel\.")
_NAMES = {3: "invalid_argument", 5: "not_found", 6: "already_exists", 7: "permission_denied", 9: "failed_precondition"}
_NAMES |= {12: "unimplemented", 14: "unavailable", 16: "unauthenticated"}
_STATUSES = {3: 400, 5: 404, 6: 409, 7: 403, 9: 400, 12: 501, 14: 503, 16: 401}
INVALID, NOT_FOUND, EXISTS, FORBIDDEN, PRECONDITION, UNIMPLEMENTED, UNAUTHENTICATED = 3, 5, 6, 7, 9, 12, 16

# Zitadel C14: a PAT carries no scopes; the roles of its machine user are its power.
RIGHTS: Mapping[str, frozenset[str]] = {
    "IAM_OWNER": frozenset({"any", "read", "users", "write"}),
    "IAM_OWNER_VIEWER": frozenset({"any", "read"}),
    "IAM_USER_MANAGER": frozenset({"any", "users"}),
    "ORG_USER_MANAGER": frozenset({"any", "users"}),
    "IAM_LOGIN_CLIENT": frozenset({"any", "users", "login"}),
}


@dataclass(frozen=True, slots=True)
class Call:
    """One authenticated API call. `editor` is the user id of the caller; `path` has the named path segments."""

    body: Mapping[str, Any]
    path: Mapping[str, str]
    editor: str


@dataclass(frozen=True, slots=True)
class Holder:
    """Whose token it is."""

    user_id: str
    roles: frozenset[str]


class ApiError(Exception):
    """A refusal: gRPC's code, Zitadel's message, the id of the place it comes from."""

    def __init__(self, code: int, message: str, place: str = "EMUL-0") -> None:
        super().__init__(message)
        self.code, self.message, self.place = code, message, place


type Method = Callable[[Call], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """`right` is what the caller must have; `status` that of a good answer."""

    verb: str
    path: str
    right: str
    run: Method
    status: int = 200


def connect(service: str, methods: Mapping[str, tuple[str, Method]]) -> list[Endpoint]:
    """Zitadel C14: every v2 method also answers Connect JSON at POST /zitadel.<service>/<Method>."""
    return [Endpoint("POST", f"/zitadel.{service}/{name}", right, run) for name, (right, run) in methods.items()]


def routes(endpoints: Iterable[Endpoint], holder: Callable[[str], Holder | None]) -> list[Route]:
    """Starlette's routes; `holder` knows the bearer tokens."""

    def route(endpoint: Endpoint) -> Route:
        async def answer(request: Request) -> Response:
            try:
                found = _caller(request, holder, endpoint.right)
                body = _object(await request.body())
                return JSONResponse(endpoint.run(Call(body, request.path_params, found.user_id)), endpoint.status)
            except ApiError as error:
                return error_answer(error, is_connect=bool(_CONNECT.match(request.url.path)))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                refused = ApiError(INVALID, f"invalid request ({type(error).__name__})")
                return error_answer(refused, is_connect=bool(_CONNECT.match(request.url.path)))

        return Route(endpoint.path, answer, methods=[endpoint.verb])

    return [route(endpoint) for endpoint in endpoints]


def _object(raw: bytes) -> dict[str, Any]:
    document = json.loads(raw or b"{}")
    if not isinstance(document, dict):
        raise ApiError(INVALID, "a JSON object is needed")
    return document


def _caller(request: Request, holder: Callable[[str], Holder | None], right: str) -> Holder:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    caller = holder(token) if scheme.lower() == "bearer" else None
    if caller is None:
        raise ApiError(UNAUTHENTICATED, "Errors.Token.Invalid (AUTH-7fs1e)", "AUTH-7fs1e")
    if not any(right in RIGHTS.get(role, ()) for role in caller.roles):
        raise ApiError(FORBIDDEN, "No matching permissions found (AUTH-5mWD2)", "AUTH-5mWD2")
    return caller


def error_answer(error: ApiError, *, is_connect: bool) -> Response:
    """An error as gRPC's gateway tells it, or as Connect does."""
    code: object = _NAMES.get(error.code, "unknown") if is_connect else error.code
    document = {"code": code, "message": error.message, "details": [{"id": error.place, "message": error.message}]}
    return JSONResponse(document, _STATUSES.get(error.code, 500))


def moment(at: float) -> str:
    """RFC 3339, microseconds, UTC."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def seconds(text: object) -> float:
    """A protojson duration such as "900s". Raises ValueError for anything else."""
    if not isinstance(text, str) or not text.endswith("s"):
        raise ValueError("a duration is needed")
    return float(text[:-1])


def without_zero(document: Mapping[str, Any]) -> dict[str, Any]:
    """protojson: what is zero, empty or false is left out."""
    return {name: value for name, value in document.items() if value not in ("", 0, "0", "0s", False, None, [], {})}
