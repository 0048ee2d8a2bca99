"""Sections `listen`, `tls`, `limits`, `admin`: where clients connect, and the gateway's own protection."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from gateway.config.models.values import Model, Port, Seconds


class Listen(Model):
    """Where people and machines connect."""

    address: str = Field("0.0.0.0", description="The address to listen on.")  # noqa: S104
    port: Port = Field(8443, description="The TCP port to listen on.")
    public_port: Port | None = Field(None, description="The port browsers use, where that is not `port`.")
    proxy_protocol: bool = Field(
        False, description="Balancers among `trusted_proxies` send the PROXY protocol, v1 or v2, on every connection."
    )
    workers: int = Field(1, ge=1, le=256, description="Processes that share the port (SO_REUSEPORT).")
    drain_s: Seconds = Field(30, description="How long open requests may go on after SIGTERM.")


class ServerCertificate(Model):
    """A certificate the gateway shows; it is picked by the server name (SNI) its SANs cover."""

    certificate: Path = Field(description="PEM: the leaf, then its chain.")
    key: Path = Field(description="PEM: the private key; it must not be readable by others.")


class Limits(Model):
    """Protection of the gateway itself."""

    header_count: int = Field(100, ge=10, le=1000, description="Header fields in a request.")
    header_kib: int = Field(32, ge=4, le=256, description="Size of a request's header section.")
    connections_per_client: int = Field(256, ge=1, description="Open connections from one address, in each worker.")
    connections: int = Field(
        20_000,
        ge=1,
        description="Open connections in each worker, if file descriptors suffice.",
    )
    upstream_connections_per_client: int = Field(
        256, ge=1, description="Open connections to upstreams for one client address, in each worker; more wait."
    )
    upstream_connections: int = Field(4096, ge=1, description="Open connections to all upstreams, in each worker.")
    streams: int = Field(100, ge=1, le=1000, description="Concurrent HTTP/2 streams on a connection.")
    buffer_mib: int = Field(
        128, ge=16, le=65_536, description="Memory for requests and answers under way, in each worker."
    )
    buffer_mib_per_client: int = Field(64, ge=4, le=65_536, description="The same for one client address.")
    buffer_mib_per_connection: int = Field(48, ge=1, le=65_536, description="The same for one connection.")
    handshake_s: Seconds = Field(10, description="Time for the TLS handshake.")
    header_s: Seconds = Field(15, description="Time for a request's head to arrive.")
    idle_s: Seconds = Field(120, description="A connection without a request is closed after this.")
    stall_s: Seconds = Field(60, description="A peer that reads or sends nothing in the middle of a body is cut.")
    rejudge_s: Seconds = Field(5, description="What stays open is judged again so often, and at once when it changes.")


class Admin(Model):
    """The operator's own listener: metrics, health, readiness."""

    address: str = Field("127.0.0.1", description="Loopback by default.")
    port: Port = Field(9443, description="0 picks a free port.")
    expose: bool = Field(False, description="Needed for an address that others can reach; it has no sign-in.")
