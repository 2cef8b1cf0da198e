# The command `etl` and nothing else: docker run --rm promptcontent-etl sync

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
# No shell in between: SIGTERM reaches the process, which then ends between two batches.
ENTRYPOINT ["etl"]
CMD ["--help"]
