# One image for every process: migrate, workers, beat, Flower. See docker-compose.yml for how each is started.
FROM python:3.11-slim-bookworm AS build
RUN pip install --no-cache-dir uv
ENV UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1 VIRTUAL_ENV=/opt/shopvision
RUN uv venv /opt/shopvision
WORKDIR /src
COPY pyproject.toml requirements.lock README.md ./
# Dependencies first, so that a change of the code leaves this layer alone. The lock holds the versions of everything;
# as a constraint it adds none of its development tools and embedded servers.
RUN uv pip install --constraints requirements.lock --requirements pyproject.toml
COPY migrations migrations
COPY shopvision shopvision
COPY tasks tasks
COPY worker worker
RUN uv pip install --no-deps .

FROM python:3.11-slim-bookworm
# Models are compiled for the machine that they run on.
RUN apt-get update && apt-get install --yes --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
RUN useradd --uid 10001 --create-home shopvision \
    && install --directory --owner=shopvision --group=shopvision --mode=0700 /var/lib/shopvision
COPY --from=build /opt/shopvision /opt/shopvision
ENV PATH=/opt/shopvision/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    SHOPVISION_HOME=/var/lib/shopvision \
    SHOPVISION_LOG_FORMAT=json
USER shopvision
WORKDIR /var/lib/shopvision
# Exec form, and each command replaces itself by the real process: process 1 gets the SIGTERM of `docker stop`.
ENTRYPOINT ["shopvision"]
CMD ["--help"]
