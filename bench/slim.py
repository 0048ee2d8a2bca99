"""A bare mitmproxy: the four parts that a reverse proxy cannot do without, one addon that does nothing, no checks.

It runs under `python -O`, as the gateway's workers do; mitmproxy's own task factory does not work on uvloop.
`python -O -m bench.slim PORT UPSTREAM-PORT CERTIFICATE-WITH-KEY FOLDER`
"""

from __future__ import annotations

import asyncio
import sys

from mitmproxy.addons.core import Core
from mitmproxy.addons.next_layer import NextLayer
from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.addons.tlsconfig import TlsConfig
from mitmproxy.http import HTTPFlow
from mitmproxy.master import Master
from mitmproxy.options import Options


class Nothing:
    """The addon."""

    def request(self, flow: HTTPFlow) -> None:
        """Look at a request."""


async def _main(port: int, upstream: int, certificate: str, folder: str) -> None:
    options = Options(confdir=folder, listen_host="127.0.0.1", listen_port=port)
    master = Master(options, event_loop=asyncio.get_running_loop())
    master.addons.add(Core(), Proxyserver(), NextLayer(), TlsConfig(), Nothing())  # type: ignore[no-untyped-call]
    options.update(  # type: ignore[no-untyped-call]
        mode=[f"reverse:http://127.0.0.1:{upstream}"], request_client_cert=True, certs=[f"*={certificate}"]
    )
    await master.run()


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]))
