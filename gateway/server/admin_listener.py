"""The operator's listener: `/metrics`, `/healthz`, `/readyz`, in a thread of its own beside the supervisor."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gateway.config import Config
from gateway.observability.metrics import CONTENT_TYPE
from gateway.replies.replies import deny
from gateway.server.ports import reserve_port

_NO_STORE = {"cache-control": "no-store"}
_FAILURES = {404: "route_not_found", 405: "method_not_allowed"}


def build_admin(*, metrics: Callable[[], bytes], ready: Callable[[], bool], policy: Callable[[], str]) -> Starlette:
    """The application: `/metrics`, `/healthz` (this process answers), `/readyz` (it should get requests)."""

    # Plain functions: Starlette runs them in a thread, so reading every worker's figures stops nobody.
    def get_metrics(_: Request) -> Response:
        return Response(metrics(), headers={**_NO_STORE, "content-type": CONTENT_TYPE})

    def get_health(_: Request) -> Response:
        return JSONResponse({"healthy": True}, headers=_NO_STORE)

    def get_ready(_: Request) -> Response:
        is_ready = ready()
        return JSONResponse({"ready": is_ready, "policy": policy()}, 200 if is_ready else 503, _NO_STORE)

    async def failed(_: Request, problem: Exception) -> Response:
        status = problem.status_code if isinstance(problem, HTTPException) else 500
        reply = deny(None, (_FAILURES.get(status, "gateway_error"),), "-")
        response = Response(reply.body, reply.status, dict(reply.headers))
        if isinstance(problem, HTTPException) and problem.headers:
            response.headers.update(problem.headers)
        return response

    routes = [Route("/metrics", get_metrics), Route("/healthz", get_health), Route("/readyz", get_ready)]
    app = Starlette(routes=routes, exception_handlers={HTTPException: failed})
    app.router.redirect_slashes = False
    return app


class AdminListener:
    """The operator's listener, in a thread of its own so that it answers whatever the supervisor does."""

    def __init__(self, config_path: Path, config: Config) -> None:
        self._socket = reserve_port(config_path, "admin", config.admin.address, config.admin.port)
        self.port: int = self._socket.getsockname()[1]
        self._server: uvicorn.Server | None = None

    def start(self, *, metrics: Callable[[], bytes], ready: Callable[[], bool], policy: Callable[[], str]) -> None:
        """Begin to serve."""
        application = build_admin(metrics=metrics, ready=ready, policy=policy)
        settings = uvicorn.Config(application, log_config=None, access_log=False, lifespan="off")
        self._server = uvicorn.Server(settings)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop serving."""
        if self._server is not None:
            self._server.should_exit = True
            self._thread.join(timeout=5)
        self._socket.close()
