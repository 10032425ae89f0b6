"""openvino is imported without its telemetry before any test file asks whether it is there."""

from contextlib import suppress

from spicula.errors import UsageError
from spicula.exams.runners.openvino import import_openvino

with suppress(UsageError):
    import_openvino()
