"""The command serve: predictions over HTTP."""

import argparse
from pathlib import Path

from spicula.cli.tools import Command, positive


def _describe_serve(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "bundles", metavar="BUNDLE", type=Path, nargs="+", help="a bundle of a study, or a four-view classifier"
    )
    where = command.add_argument_group("where")
    where.add_argument(
        "--host", metavar="HOST", default="127.0.0.1", help="address to listen at (default 127.0.0.1: this machine)"
    )
    where.add_argument("--port", metavar="PORT", type=_port, default=8000, help="(default 8000; 0: a free one)")
    where.add_argument("--tls-cert", metavar="FILE", type=Path, help="certificates, PEM; with --tls-key")
    where.add_argument("--tls-key", metavar="FILE", type=Path, help="key of the certificate, PEM, without a password")
    where.add_argument(
        "--proxy",
        metavar="ADDRESS",
        action="append",
        default=[],
        help="of a proxy whose X-Forwarded-For is believed; repeat for several",
    )
    where.add_argument("--dicom-port", metavar="PORT", type=_port, help="listen there for C-STORE as well")
    where.add_argument("--ae-title", metavar="TITLE", default="SPICULA", help="of C-STORE (default SPICULA)")
    who = command.add_argument_group("who")
    who.add_argument(
        "--dicom-peer",
        metavar="TITLE@ADDRESS",
        action="append",
        default=[],
        help="of C-STORE: only such peers may send; repeat for several",
    )
    who.add_argument(
        "--tokens", metavar="FILE", type=Path, help="a NAME and a TOKEN in each line (default: SPICULA_TOKENS)"
    )
    who.add_argument("--audit", metavar="FILE", type=Path, help="audit log: a line of JSON for each answer")
    who.add_argument(
        "--log", choices=["requests", "errors"], default="requests", help="on stderr (default: a line a request)"
    )
    how = command.add_argument_group("how")
    how.add_argument("--workspace", metavar="WS", help="where exams and their results are kept")
    how.add_argument(
        "--provider",
        choices=["onnxruntime", "openvino", "cuda"],
        default="onnxruntime",
        help="what runs the models (default onnxruntime)",
    )
    how.add_argument("--precision", choices=["fp32", "bf16"], default="fp32", help="(default fp32)")
    how.add_argument("--workers", metavar="N", type=positive, help="images in a model at a time (default: cores)")
    how.add_argument(
        "--backend", metavar="URL", help="a server that runs the models: triton://HOST:PORT/MODEL or kserve://..."
    )
    how.add_argument(
        "--limit",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="change a limit: queue=128; repeat for several; docs/limits.md lists them",
    )


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port, 0 to 65535")
    return int(text)


def _serve(options: argparse.Namespace) -> int:
    from spicula.errors import UsageError
    from spicula.serving.limits import Limits
    from spicula.serving.server import serve
    from spicula.serving.settings import ServeSettings, Tls

    if (options.tls_cert is None) != (options.tls_key is None):
        raise UsageError("--tls-cert and --tls-key belong together")
    tls = None if options.tls_cert is None else Tls(options.tls_cert, options.tls_key)
    return serve(
        ServeSettings(
            bundles=tuple(options.bundles),
            host=options.host,
            port=options.port,
            workspace=options.workspace,
            tokens=options.tokens,
            tls=tls,
            proxies=tuple(options.proxy),
            provider=options.provider,
            precision=options.precision,
            workers=options.workers,
            backend=options.backend,
            audit=options.audit,
            dicom_port=options.dicom_port,
            ae_title=options.ae_title,
            dicom_peers=tuple(options.dicom_peer),
            log=options.log,
            limits=Limits(options.limit),
        )
    )


COMMANDS = (Command("serve", "answer over HTTP: a page, REST, KServe v2 and DICOMweb", _describe_serve, _serve),)
