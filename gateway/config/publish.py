"""`Config` -> the routes and rules of the data path."""

from __future__ import annotations

from gateway.config.checks import segments_of
from gateway.config.models import Config, PathRule, Service
from gateway.core.routes import Route

_MIB = 1 << 20


def rules_of(service: Service) -> dict[str, PathRule]:
    """Every rule of a service by its path, "" for the service itself, with nothing left open but `methods`.

    What a rule does not say is taken from the nearest rule above it, then from the service: a path below a strict path
    is never looser by silence.
    """
    own = PathRule(
        sensitivity=service.sensitivity,
        device=service.device,
        allow=service.allow,
        body_limit_mib=service.body_limit_mib,
    )
    rules: dict[str, PathRule] = {"": own}
    above: dict[tuple[str, ...], PathRule] = {}
    for path in sorted(service.paths, key=lambda text: len(segments_of(text))):
        segments = segments_of(path)
        nearest = next((above[segments[:n]] for n in range(len(segments), -1, -1) if segments[:n] in above), own)
        said = {name: value for name, value in service.paths[path] if value is not None}
        rules[path] = above[segments] = nearest.model_copy(update=said)
    return rules


def routes_of(config: Config) -> tuple[Route, ...]:
    """The route of every service's root and of every path rule; `upstream` is the service's name."""
    return tuple(route for name, service in config.services.items() for route in _routes(name, service))


def _routes(name: str, service: Service) -> list[Route]:
    rules = rules_of(service)
    if any(not segments_of(path) for path in service.paths):
        del rules[""]
    return [
        Route(
            service=name,
            host=service.host,
            prefix=segments_of(path),
            methods=None if rule.methods is None else frozenset(rule.methods),
            upstream=name,
            plane=service.plane,
            department=service.department,
            sensitivity=rule.sensitivity or service.sensitivity,
            device_required=rule.device == "required",
            introspect_cache_s=service.introspect_cache_s,
            issuers=service.issuers,
            keep_bearer=service.keep_bearer,
            own_authorization=service.authorization == "service",
            identity_headers=service.identity_headers,
            preserve_host=service.preserve_host,
            path_parameters=service.path_parameters,
            encoded_slash=service.encoded_slash == "keep",
            strip_headers=frozenset(service.strip_headers),
            keep_headers=frozenset(service.keep_headers),
            origins=frozenset(service.origins),
            body_limit_bytes=(rule.body_limit_mib or 0) * _MIB,
            rule=path,
        )
        for path, rule in rules.items()
    ]
