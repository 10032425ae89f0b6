"""Spicula: from breast images to explained, exported and honestly evaluated classifiers."""

import os

__version__ = "0.1.0"

#: Stands on everything that a person reads.
RESEARCH_NOTICE = "Research use only. Not a medical device."

# From 1.29 on ONNX Runtime keeps a device id and sends what is run to its maker, unless this is set before it is
# imported, in this process and in those that it starts: https://github.com/microsoft/onnxruntime/blob/main/docs/Privacy.md
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
