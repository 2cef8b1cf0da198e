# The command `etl` and nothing else: docker run --rm promptcontent-etl sync; the daemon is `run`.

FROM python:3.11-slim AS build
WORKDIR /src
RUN python -m venv --without-pip /opt/etl
# The dependencies have a layer of their own, which a change of the source does not build again: an empty package.
COPY pyproject.toml LICENSE constraints.txt ./
RUN mkdir etl schemas && touch README.md etl/__init__.py schemas/__init__.py \
    && pip --python /opt/etl/bin/python install --no-cache-dir --constraint constraints.txt .
COPY README.md ./
COPY etl etl
COPY schemas schemas
RUN pip --python /opt/etl/bin/python install --no-cache-dir --no-deps --force-reinstall .

FROM python:3.11-slim
LABEL org.opencontainers.image.title="promptcontent-etl" \
      org.opencontainers.image.description="Keeps Redis caches true to MongoDB" \
      org.opencontainers.image.version="0.2.0" \
      org.opencontainers.image.licenses="MIT"
# Nothing is installed in a container that runs.
RUN pip uninstall --yes setuptools wheel pip && useradd --system --no-create-home --uid 10001 etl
COPY --from=build /opt/etl /opt/etl
ENV PATH=/opt/etl/bin:$PATH PYTHONUNBUFFERED=1
# By number, so that runAsNonRoot of Kubernetes can tell.
USER 10001
WORKDIR /app
EXPOSE 8088
# Of the daemon: both servers answer, and each collection had a success within two cycles. It asks where the settings of
# this container say that the daemon answers: from the environment, ETL_CONFIG or config/etl.yaml, not from `run --config`.
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s --retries=3 CMD ["etl", "health"]
# No shell in between: SIGTERM reaches the process, which then ends between two batches. `env` holds it back while Python
# starts, as the kernel drops what comes for the first process of a container before that knows what to do about it.
ENTRYPOINT ["env", "--block-signal=TERM,HUP", "etl"]
CMD ["--help"]
