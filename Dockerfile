# poller as a container; docs/guide/container.md says how to run it, compose.yaml shows it.
#
#   docker build -t poller .
#   docker build -t poller --build-arg EXTRAS=kafka,s3 .           # with what these sinks need; the names are in requirements/
#   docker build -t poller --secret id=pip,src=/etc/pip.conf .     # behind a package mirror
#   podman build -t poller --format docker .                       # OCI's own format has no health checks

FROM docker.io/library/python:3.11.14-slim-bookworm@sha256:65a93d69fa75478d554f4ad27c85c1e69fa184956261b4301ebaf6dbb0a3543d AS build
WORKDIR /src
# Without a pip of its own: what is copied below is the program, and nothing that could install another.
RUN python -m venv --without-pip /opt/poller
COPY requirements.txt requirements-build.txt ./
COPY requirements ./requirements
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
# Extras of the package, with commas between them. Nothing is installed if one of them does not exist.
ARG EXTRAS=""
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    known="$(python -c 'import pathlib; print(*sorted(file.stem for file in pathlib.Path("requirements").iterdir()))')" \
    && IFS=', ' && set -f -- \
    && for extra in $EXTRAS; do \
        case " $known " in \
            *" $extra "*) set -- "$@" -r "requirements/$extra.txt" ;; \
            *) echo "EXTRAS: there is no extra '$extra', only: $known" >&2; exit 1 ;; \
        esac; \
    done \
    && python -m pip --python /opt/poller/bin/python install --require-hashes -r requirements.txt "$@" \
    && python -m pip install --require-hashes -r requirements-build.txt
COPY pyproject.toml README.md LICENSE ./
COPY poller ./poller
RUN python -m pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
    && python -m pip --python /opt/poller/bin/python install --no-deps --no-index /wheels/*.whl

FROM docker.io/library/python:3.11.14-slim-bookworm@sha256:65a93d69fa75478d554f4ad27c85c1e69fa184956261b4301ebaf6dbb0a3543d
LABEL org.opencontainers.image.title="poller" \
      org.opencontainers.image.description="Live-stream screenshots out of Tencent Cloud Live and into your pipeline, without losing one." \
      org.opencontainers.image.licenses="Apache-2.0"
# The numbers are fixed, because files that are mounted are owned by numbers.
RUN python -m pip uninstall --yes --quiet --root-user-action=ignore setuptools wheel pip \
    && install -d -o 10001 -g 10001 -m 0750 /var/lib/poller
COPY --from=build /opt/poller /opt/poller

# Where the health check asks: the configuration's `admin.listen`, which may say ${POLLER_ADMIN}.
ENV POLLER_ADMIN=127.0.0.1:9464
# Ports that a configuration may open: 9464 metrics and health, 9465 callbacks, 9480 the pages. None is open by default.
USER 10001:10001
WORKDIR /var/lib/poller
VOLUME /var/lib/poller
# A poll in flight is waited for after it, up to 60 s: stop with a grace period of 90 s.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=2m --retries=3 \
    CMD ["/opt/poller/bin/python", "-I", "-c", "import os, sys; from http.client import HTTPConnection; c = HTTPConnection(os.environ['POLLER_ADMIN'], timeout=8); c.request('GET', '/healthz'); sys.exit(c.getresponse().status != 200)"]
ENTRYPOINT ["/opt/poller/bin/poller"]
CMD ["run", "--config", "/etc/poller/poller.yaml"]
