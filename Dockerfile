# docker build -t rdejax .    and for NVIDIA GPUs --build-arg EXTRAS=cuda12 (or cuda13); see docs/containers.md
FROM python:3.12-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY rdejax rdejax
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.12-slim
ARG EXTRAS=viz
COPY --from=build /wheels /wheels
# The wheel's own name carries the version, so the extras go behind its path.
RUN pip install --no-cache-dir "$(ls /wheels/rdejax-*.whl)[${EXTRAS}]" && rm -r /wheels && pip check
ENV JAX_COMPILATION_CACHE_DIR=/cache PYTHONUNBUFFERED=1
RUN mkdir -m 1777 /cache /work
WORKDIR /work
ENTRYPOINT ["rdejax"]
CMD ["--help"]
