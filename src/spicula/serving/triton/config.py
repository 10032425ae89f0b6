"""The configurations that Triton reads: one config.pbtxt for each model of a repository.

Field names are those of `ModelConfig` in Triton's model_config.proto. Parameters of the backends are those that
onnxruntime_backend's README lists.
"""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from spicula.bundle import BATCH
from spicula.serving.limits import Limits

if TYPE_CHECKING:
    from spicula.bundle import Bundle

Device = Literal["cpu", "gpu"]

#: What the name of a bundle's model is followed by in the names of the two others.
PREPROCESS, IMAGE = "_preprocess", "_image"
#: The input of these two: an image file, as its bytes.
FILE = "file"
#: The parameter that says which bundle a model is of.
DIGEST = "bundle_digest"
#: Files of the network's folder: the classes by line, and one input, as the raw bytes of its tensor.
LABELS, GOLDEN = "labels.txt", "golden"

#: Requests that are put together on a CPU: no more than this, for a batch gains little there, and all of it waits for
#: its last image while other instances stand idle.
_CPU_BATCH = 4
#: On a GPU a batch takes hardly longer than one image; a request waits so long for company, about as long as the
#: network takes.
_GPU_BATCHES, _GPU_WAIT_MICROSECONDS = (4, 8, BATCH), 2000

_NETWORK = """\
# The network of a bundle, for tensors that are prepared already. Made by: spicula bundle triton
name: {name}
backend: "onnxruntime"
max_batch_size: {batch}
input [ {{ name: {input_name} data_type: TYPE_FP32 dims: {input_dims} }} ]
output [ {{ name: {output_name} data_type: TYPE_FP32 dims: {output_dims} label_filename: "{labels}" }} ]
{explanation}# the one version that the digest below speaks of
version_policy {{ specific {{ versions: [ 1 ] }} }}
{execution}
{parameters}
"""

_EXPLANATION = """\
# what spoke for the target, for heatmaps; the backend computes at each request every output that stands here
output [ {{ name: {name} data_type: TYPE_FP32 dims: {dims} }} ]
"""

_CPU = """\
instance_group [ {{ kind: KIND_CPU count: {instances} }} ]
# an instance has one core: instances side by side do more than threads within one
parameters {{ key: "intra_op_thread_count" value: {{ string_value: "1" }} }}
# what waits is put together, and nobody waits for company
dynamic_batching {{
  preferred_batch_size: {preferred}
  max_queue_delay_microseconds: 0
  {queue}
}}
{warmup}"""

_GPU = """\
instance_group [ {{ kind: KIND_GPU count: {instances} }} ]
# float32 stays float32
optimization {{ execution_accelerators {{ gpu_execution_accelerator [
  {{ name: "cuda" parameters {{ key: "use_tf32" value: "0" }} }}
] }} }}
dynamic_batching {{
  preferred_batch_size: {preferred}
  max_queue_delay_microseconds: {wait}
  {queue}
}}
{warmup}
# the largest batch as well: its first run chooses algorithms
{warmup_batch}"""

_WARMUP = """\
model_warmup [ {{
  name: "golden-{batch}"
  batch_size: {batch}
  inputs {{ key: {name} value: {{ data_type: TYPE_FP32 dims: {dims} input_data_file: "{golden}" }} }}
}} ]"""

_PREPROCESS = """\
# From the bytes of an image file to what the network takes, as spicula predict does it. Made by: spicula bundle triton
name: {name}
backend: "python"
# one file a request: files are of different lengths
max_batch_size: 0
input [ {{ name: "{file}" data_type: TYPE_UINT8 dims: [ -1 ] }} ]
output [ {{ name: {input_name} data_type: TYPE_FP32 dims: {input_dims} }} ]
version_policy {{ specific {{ versions: [ 1 ] }} }}
# each with a process of its own that decodes
instance_group [ {{ kind: KIND_CPU count: {decoders} }} ]
dynamic_batching {{
  {queue}
}}
{parameters}
"""

_ENSEMBLE = """\
# From the bytes of an image file to the probabilities of its classes. Made by: spicula bundle triton
name: {name}
platform: "ensemble"
max_batch_size: 0
input [ {{ name: "{file}" data_type: TYPE_UINT8 dims: [ -1 ] }} ]
output [ {{ name: {output_name} data_type: TYPE_FP32 dims: {output_dims} }} ]
version_policy {{ specific {{ versions: [ 1 ] }} }}
ensemble_scheduling {{
  step [
    {{
      model_name: {preprocess}
      model_version: 1
      input_map {{ key: "{file}" value: "{file}" }}
      output_map {{ key: {input_name} value: "prepared" }}
    }},
    {{
      model_name: {network}
      model_version: 1
      input_map {{ key: {input_name} value: "prepared" }}
      output_map {{ key: {output_name} value: {output_name} }}
    }}
  ]
}}
{parameters}
"""


def network(bundle: "Bundle", device: Device, instances: int) -> str:
    """Return the configuration of a bundle's network.

    Args:
        bundle: the model.
        device: what its instances run on.
        instances: of the model; on a GPU: on each.
    """
    info = bundle.info
    name, dims = _quoted(info["input"]["name"]), _listed(info["input"]["shape"][1:])
    warmup, warmup_batch = (_WARMUP.format(batch=batch, name=name, dims=dims, golden=GOLDEN) for batch in (1, BATCH))
    common = {"instances": instances, "queue": _queue(), "warmup": warmup}
    if device == "cpu":
        execution = _CPU.format(preferred=_listed([_CPU_BATCH]), **common)
    else:
        execution = _GPU.format(
            preferred=_listed(_GPU_BATCHES), wait=_GPU_WAIT_MICROSECONDS, warmup_batch=warmup_batch, **common
        )
    explanation = ""
    if told := info.get("explanation"):
        explanation = _EXPLANATION.format(name=_quoted(told["name"]), dims=_listed(told["shape"][1:]))
    return _NETWORK.format(
        name=_quoted(bundle.name),
        batch=BATCH,
        input_name=name,
        input_dims=dims,
        output_name=_quoted(info["output"]["name"]),
        output_dims=_listed(info["output"]["shape"][1:]),
        labels=LABELS,
        explanation=explanation,
        execution=execution,
        parameters=_parameters(bundle),
    )


def preprocess(bundle: "Bundle", decoders: int) -> str:
    """Return the configuration of what prepares images for a bundle's network.

    Args:
        bundle: the model.
        decoders: images that are prepared at a time.
    """
    return _PREPROCESS.format(
        name=_quoted(bundle.name + PREPROCESS),
        file=FILE,
        input_name=_quoted(bundle.info["input"]["name"]),
        input_dims=_listed([1, *bundle.info["input"]["shape"][1:]]),
        decoders=decoders,
        queue=_queue(),
        parameters=_parameters(bundle),
    )


def ensemble(bundle: "Bundle") -> str:
    """Return the configuration of both, one after the other."""
    return _ENSEMBLE.format(
        name=_quoted(bundle.name + IMAGE),
        file=FILE,
        preprocess=_quoted(bundle.name + PREPROCESS),
        network=_quoted(bundle.name),
        input_name=_quoted(bundle.info["input"]["name"]),
        output_name=_quoted(bundle.info["output"]["name"]),
        output_dims=_listed([1, *bundle.info["output"]["shape"][1:]]),
        parameters=_parameters(bundle),
    )


def _queue() -> str:
    """The limits of the service on what waits: beyond them Triton answers 503 at once."""
    limits = Limits()
    return (
        f"default_queue_policy {{ max_queue_size: {limits['queue']} "
        f"default_timeout_microseconds: {limits['answer-seconds'] * 1_000_000} timeout_action: REJECT }}"
    )


def _parameters(bundle: "Bundle") -> str:
    """What a model says of itself: which bundle it is of, and what its answers mean. The last ones are JSON."""
    info = bundle.info
    said: Mapping[str, str] = {
        DIGEST: bundle.digest,
        "bundle_version": info["version"],
        "spicula": info["spicula"],
        "notice": info["notice"],
        "scope": info["scope"]["statement"],
        "target": bundle.target,
        "classes": json.dumps(info["classes"], ensure_ascii=False),
        "thresholds": json.dumps(
            {name: point["threshold"] for name, point in info["operating_points"].items()}, ensure_ascii=False
        ),
    }
    return "\n".join(
        f"parameters {{ key: {_quoted(key)} value: {{ string_value: {_quoted(value)} }} }}"
        for key, value in said.items()
    )


def _listed(sizes: Sequence[int | str]) -> str:
    return f"[ {', '.join(map(str, sizes))} ]"


def _quoted(text: str) -> str:
    """Return text as protobuf's text format writes it: quotes, backslashes and control characters are escapes."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(one if ord(one) >= 32 else f"\\{ord(one):03o}" for one in escaped) + '"'
