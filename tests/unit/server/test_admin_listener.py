import json
from typing import Any

import httpx

from gateway.observability.metrics import CONTENT_TYPE
from gateway.server.admin_listener import build_admin


async def get(app: Any, path: Any) -> Any:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
        response = await client.get(path)
    return response.status_code, response.headers, response.content


async def test_the_operators_listener_shows_metrics_health_and_readiness() -> None:
    parts = {"ready": True}
    app = build_admin(metrics=lambda: b"gateway_x 1\n", ready=lambda: parts["ready"], policy=lambda: "abc")
    status, headers, body = await get(app, "/metrics")
    assert (status, headers["content-type"], body) == (200, CONTENT_TYPE, b"gateway_x 1\n")
    status, _, body = await get(app, "/healthz")
    assert (status, json.loads(body)) == (200, {"healthy": True})
    status, _, body = await get(app, "/readyz")
    assert (status, json.loads(body)) == (200, {"ready": True, "policy": "abc"})
    parts["ready"] = False
    status, _, _ = await get(app, "/readyz")
    assert status == 503
    status, _, _ = await get(app, "/.gateway/jwks.json")
    assert status == 404
