# NVIDIA's Triton with Spicula for its Python backend. In the root of the repository:
#   docker build -f deploy/containers/triton.Dockerfile -t spicula-triton:0.1.0 .
# A repository of models (spicula bundle triton) is mounted at /models.
#
# The Python of both images has to be of the same minor version: packages are installed by one and imported by the other.
ARG PYTHON=3.12.12-slim-bookworm
ARG TRITON=25.06-py3

FROM python:${PYTHON} AS build
ENV PIP_CONSTRAINT=/build/constraints.txt \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY src ./src
RUN python -m venv --without-pip /opt/spicula \
    && python -m pip --python /opt/spicula/bin/python install --only-binary :all: ".[serve]"

FROM nvcr.io/nvidia/tritonserver:${TRITON}
# Triton's Python backend starts no Python of its own choice: it takes the environment that is the first in PATH, and
# passes over PYTHONPATH.
RUN python3 -m venv --without-pip /opt/spicula
COPY --from=build /opt/spicula/lib/python3.12/site-packages /opt/spicula/lib/python3.12/site-packages
ENV PATH=/opt/spicula/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    ORT_DISABLE_TELEMETRY=1 \
    HOME=/tmp
USER 10001:10001
WORKDIR /tmp
EXPOSE 8000 8002
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --start-interval=1s --retries=3 \
    CMD ["python3", "-c", "import http.client as h; c = h.HTTPConnection('127.0.0.1', 8000, timeout=4); c.request('GET', '/v2/health/ready'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["/opt/tritonserver/bin/tritonserver", "--model-repository=/models", "--http-port=8000", "--metrics-port=8002", "--allow-grpc=false", "--exit-timeout-secs=30"]
CMD ["--model-control-mode=none"]
