"""What a service is started with."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from spicula.serving.limits import Limits

Provider = Literal["onnxruntime", "openvino", "cuda"]


@dataclass(frozen=True)
class Tls:
    """Files of a certificate chain and its key, both PEM."""

    certificate: Path
    key: Path


@dataclass(frozen=True)
class ServeSettings:
    """Everything that `spicula serve` is told.

    Attributes:
        bundles: folders of studies' bundles and of a four-view classifier.
        host: address to listen at; any but loopback needs tokens.
        port: to listen at; 0 for a free one.
        workspace: of exams, see `exams.run`; None: a folder in the user's cache. It is made when it is needed.
        tokens: file with a NAME and a token in each line; None: SPICULA_TOKENS, or no tokens.
        tls: None: plain HTTP, for loopback or behind a proxy.
        proxies: addresses of proxies whose X-Forwarded-For is believed.
        provider: what runs bundles of studies.
        precision: "bf16" with openvino alone.
        workers: images that are in a model at a time, each on a core of its own; None: one a core.
        backend: address of a KServe v2 server that runs the models instead: triton://HOST:PORT/MODEL or
            kserve://HOST:PORT/MODEL, https with triton+https:// and kserve+https://; None: this process does.
        audit: file of the audit log; None: none is kept.
        dicom_port: of the C-STORE listener; None: there is none.
        ae_title: of the C-STORE listener.
        dicom_peers: who may send to it, each TITLE@ADDRESS; any but loopback needs them. None of them: this machine.
        log: "requests": a line for each request on stderr; "errors": only what went wrong in the service.
        limits: see `limits.LIMITS`.
    """

    bundles: tuple[Path, ...]
    host: str = "127.0.0.1"
    port: int = 8000
    workspace: str | None = None
    tokens: Path | None = None
    tls: Tls | None = None
    proxies: tuple[str, ...] = ()
    provider: Provider = "onnxruntime"
    precision: Literal["fp32", "bf16"] = "fp32"
    workers: int | None = None
    backend: str | None = None
    audit: Path | None = None
    dicom_port: int | None = None
    ae_title: str = "SPICULA"
    dicom_peers: tuple[str, ...] = ()
    log: Literal["requests", "errors"] = "requests"
    limits: Limits = field(default_factory=Limits)
