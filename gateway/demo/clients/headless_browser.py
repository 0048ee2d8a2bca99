"""Somebody with a browser, without the browser: cookies by host, redirects followed, the provider's form filled in.

Names are never looked up: hosts below .localhost are 127.0.0.1, and TLS and HTTP ask for the real host name.
"""

from __future__ import annotations

import html
import re
import ssl
from collections.abc import Mapping
from http.cookies import SimpleCookie
from pathlib import Path
from urllib.parse import SplitResult, urljoin, urlsplit

import httpx

from gateway.demo.clients.http import ADDRESS, DeviceFiles, client_context
from gateway.demo.idp.accounts import PASSWORD

_REDIRECTS, _MOST = frozenset({301, 302, 303, 307}), 20
_KEPT = 307
_TIMEOUT_S = 15.0
_FIELD = re.compile(r'name="([\w-]+)" value="([^"]*)"')
_FORM = re.compile(r'<form method="post" action="([^"]*)".*?>(.*?)</form>', re.DOTALL)
_LOGIN_FORM = "/ui/v2/login/login"


class Person:
    """A browser of one person: `open` goes wherever it is sent and answers with where that ends.

    `address` is the one of this machine's own that it connects from; "" leaves that to the system. `forwarded` is what
    a load balancer at that address says of where the person is.
    """

    def __init__(self, ca: Path, device: DeviceFiles | None = None, address: str = "") -> None:
        self.jars: dict[str, dict[str, str]] = {}
        self.visited: list[str] = []
        self.forwarded = ""
        self._ca, self._device, self._from = ca, device, address or None
        self._context: ssl.SSLContext | None = None
        self._clients: dict[str, httpx.Client] = {}

    def close(self) -> None:
        """Close the browser; its cookies stay readable."""
        for client in self._clients.values():
            client.close()

    def open(self, url: str, form: Mapping[str, str] | None = None, origin: str = "") -> httpx.Response:
        """Navigate as a browser does: a GET, or the POST of a form from a page of `origin`."""
        content = None if form is None else httpx.QueryParams(dict(form)).__str__().encode()
        self.visited.clear()
        for _ in range(_MOST):
            answer = self.ask(url, content=content, origin=origin)
            self.visited.append(url)
            if answer.status_code not in _REDIRECTS:
                return answer
            url = urljoin(url, answer.headers["location"])
            if answer.status_code != _KEPT:
                content, origin = None, ""
        raise ValueError("redirected for ever")

    def ask(
        self,
        url: str,
        *,
        content: bytes | None = None,
        origin: str = "",
        headers: Mapping[str, str] | None = None,
        method: str = "",
    ) -> httpx.Response:
        """One request of a page, without following where it leads; by default a GET, and a POST with `content`."""
        parts = urlsplit(url)
        if parts.netloc not in self._clients:
            # Late: the device may be enrolled after its owner is there.
            self._context = self._context or client_context(self._ca, self._device)
            way = httpx.HTTPTransport(verify=self._context, trust_env=False, http2=True, local_address=self._from)
            self._clients[parts.netloc] = httpx.Client(transport=way, trust_env=False, timeout=_TIMEOUT_S)
        client = self._clients[parts.netloc]
        request = client.build_request(
            method or ("GET" if content is None else "POST"),
            _address(parts).geturl(),
            content=content,
            headers=dict(headers or _navigation(origin, form=content is not None)) | {"host": parts.netloc},
            extensions={"sni_hostname": parts.hostname},
        )
        jar = self.jars.setdefault(parts.hostname or "", {})
        if jar:
            request.headers["cookie"] = "; ".join(f"{name}={value}" for name, value in jar.items())
        if self.forwarded and parts.hostname != ADDRESS:
            request.headers["x-forwarded-for"] = self.forwarded
        answer = client.send(request)
        for text in answer.headers.get_list("set-cookie"):
            for name, morsel in SimpleCookie(text).items():
                if morsel["max-age"] == "0":
                    jar.pop(name, None)
                else:
                    jar[name] = morsel.value
        return answer

    def sign_in(
        self, url: str, user: str, form: Mapping[str, str] | None = None, *, origin: str = "", code: str = ""
    ) -> httpx.Response:
        """Open `url`, and fill in the provider's form when it leads there: what comes in the end."""
        answer = self.open(url, form, origin)
        if urlsplit(self.visited[-1]).path != _LOGIN_FORM:
            return answer
        page = self.visited[-1]
        hidden = {name: html.unescape(value) for name, value in _FIELD.findall(answer.text)}
        filled = hidden | {"loginName": f"{user}@acme.localhost", "password": PASSWORD, "code": code}
        return self.open(page, filled, origin="null")

    # ---- the gateway's own pages ----

    def follow(self, page: httpx.Response, path: str) -> httpx.Response:
        """Follow the link to `path` on this page. Raises ValueError when there is none."""
        link = re.search(rf'href="({re.escape(path)}[^"]*)"', page.text)
        if link is None:
            raise ValueError(f"no link to {path}")
        return self.open(urljoin(self.visited[-1], html.unescape(link[1])))

    def send(self, page: httpx.Response, fields: Mapping[str, str], origin: str) -> httpx.Response:
        """Send the form of this page that has this `action`, if any, and whose hidden fields agree with `fields`.

        Raises ValueError when there is none.
        """
        for action, body in _FORM.findall(page.text):
            hidden = {name: html.unescape(value) for name, value in _FIELD.findall(body)}
            agrees = all(hidden.get(name, value) == value for name, value in fields.items())
            if agrees and "csrf" in hidden and hidden.keys() >= fields.keys() & {"action"}:
                return self.open(urljoin(self.visited[-1], html.unescape(action)), hidden | dict(fields), origin)
        raise ValueError("no such form")

    def shown(self, page: httpx.Response, name: str) -> str:
        """What the element of this class says."""
        found = re.search(rf'class="[^"]*\b{re.escape(name)}\b[^"]*">([^<]*)<', page.text)
        return html.unescape(found[1]) if found else ""


def _address(parts: SplitResult) -> SplitResult:
    if not (parts.hostname or "").endswith(".localhost"):
        return parts
    return parts._replace(netloc=ADDRESS + (f":{parts.port}" if parts.port else ""))


def _navigation(origin: str, *, form: bool) -> dict[str, str]:
    headers = {
        "accept": "text/html,application/xhtml+xml",
        "sec-fetch-mode": "navigate",
        "sec-fetch-dest": "document",
        "sec-fetch-site": "same-origin" if origin.startswith("https") else "none",
        "user-agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0",
    }
    if form:
        headers |= {"content-type": "application/x-www-form-urlencoded", "origin": origin}
    return headers
