"""Generation, as the edge sees it: everything that one version of the configuration brings to life."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from gateway.edge.mitm.tls import ServerContexts
from gateway.edge.mitm.upstream_pool import UpstreamPool
from gateway.pipeline.interaction import LocalEndpoints
from gateway.pipeline.pipeline import Pipeline


class Generation(Protocol):
    """What a request keeps to for as long as it lives."""

    @property
    def pipeline(self) -> Pipeline:
        """Judges requests."""

    @property
    def endpoints(self) -> LocalEndpoints:
        """The gateway's own endpoints."""

    @property
    def contexts(self) -> ServerContexts:
        """The TLS contexts by server name."""

    @property
    def upstreams(self) -> Mapping[str, UpstreamPool]:
        """The pool of each service, by name."""
