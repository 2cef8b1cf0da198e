# The command `etl` and nothing else: docker run --rm promptcontent-etl sync; the daemon is `run`.

FROM python:3.11-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY etl etl
COPY schemas schemas
RUN python -m venv /opt/etl && /opt/etl/bin/pip install --no-cache-dir .

FROM python:3.11-slim
RUN useradd --system --no-create-home --uid 10001 etl
COPY --from=build /opt/etl /opt/etl
ENV PATH=/opt/etl/bin:$PATH PYTHONUNBUFFERED=1
USER etl
WORKDIR /app
EXPOSE 8088
# Of the daemon: both servers answer, and each collection had a success within two cycles. It asks where the settings of
# this container say that the daemon answers: from the environment, ETL_CONFIG or config/etl.yaml, not from `run --config`.
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s --retries=3 CMD ["etl", "health"]
# No shell in between: SIGTERM reaches the process, which then ends between two batches. `env` holds it back while Python
# starts, as the kernel drops what comes for the first process of a container before that knows what to do about it.
ENTRYPOINT ["env", "--block-signal=TERM,HUP", "etl"]
CMD ["--help"]
