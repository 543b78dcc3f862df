# One image for chatd, brokerd, chat and chatctl. Two stages: pip and the sources stay behind.
FROM python:3.11-slim-bookworm AS build
RUN apt-get update -q && apt-get install -y -q --no-install-recommends gcc libc6-dev
WORKDIR /src
COPY setup.py setup.cfg pyproject.toml README.md ./
COPY protocol protocol
COPY brokerd brokerd
COPY chatd chatd
COPY bench bench
RUN python3 -m venv /opt/chatd \
 && CHATD_NATIVE=1 /opt/chatd/bin/pip install --no-cache-dir --disable-pip-version-check --quiet . \
 && /opt/chatd/bin/pip uninstall --quiet --yes setuptools pip

FROM python:3.11-slim-bookworm
# The number is fixed, so that files outside can be given to it.
RUN groupadd --gid 10001 chatd \
 && useradd --uid 10001 --gid chatd --home-dir /var/lib/chatd --no-create-home --shell /usr/sbin/nologin chatd \
 && install -d -m 700 -o chatd -g chatd /var/lib/chatd
COPY --from=build /opt/chatd /opt/chatd
ENV PATH=/opt/chatd/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    CREDENTIALS_DIRECTORY=/run/secrets \
    CHATD_DATA_DIR=/var/lib/chatd \
    CHATD_TCP_HOST=0.0.0.0 \
    CHATD_HTTP_HOST=0.0.0.0
# Where secrets are mounted; empty when there are none.
RUN mkdir -p /run/secrets
USER chatd
EXPOSE 7400 7480
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=4s --start-period=30s --retries=3 \
  CMD ["python3", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:7480/readyz', timeout=3)"]
CMD ["chatd"]
