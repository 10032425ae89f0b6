# The service on an NVIDIA GPU, whose driver has to know CUDA 13. In the root of the repository:
#   docker build -f deploy/containers/gpu.Dockerfile -t spicula-gpu:0.1.0 .
ARG PYTHON=3.12.12-slim-bookworm

FROM python:${PYTHON} AS build
# Exams on a GPU want PyTorch: serve,exams,train.
ARG EXTRAS=serve
# Pins of every package, and of what builds Spicula's own wheel.
ENV PIP_CONSTRAINT=/build/constraints.txt \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY src ./src
# No package is compiled, so there is no compiler here.
RUN python -m venv --without-pip /opt/spicula \
    && python -m pip --python /opt/spicula/bin/python install --only-binary :all: ".[${EXTRAS}]" \
    && python -m pip --python /opt/spicula/bin/python uninstall --yes onnxruntime \
    && python -m pip --python /opt/spicula/bin/python install --only-binary :all: "onnxruntime-gpu[cuda,cudnn]==1.31.1"

FROM python:${PYTHON}
RUN python -m pip uninstall --yes --root-user-action=ignore pip \
    && install --directory --owner=10001 --group=10001 --mode=0700 /var/lib/spicula
COPY --from=build /opt/spicula /opt/spicula
# The temporary folder is the only one that is written to beside /var/lib/spicula; the user has no home.
ENV PATH=/opt/spicula/bin:$PATH \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    LD_LIBRARY_PATH=/opt/spicula/lib/python3.12/site-packages/nvidia/cu13/lib:/opt/spicula/lib/python3.12/site-packages/nvidia/cudnn/lib \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001:10001
WORKDIR /var/lib/spicula
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --start-interval=1s --retries=3 \
    CMD ["python", "-c", "import http.client as h; c = h.HTTPConnection('127.0.0.1', 8000, timeout=4); c.request('GET', '/readyz'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["spicula", "serve", "--host", "0.0.0.0", "--port", "8000", "--workspace", "/var/lib/spicula/workspace", "--provider", "cuda"]
CMD ["/models/bundle"]
