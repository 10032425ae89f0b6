"""The Open Inference Protocol (KServe v2) over HTTP, as plain functions: requests and answers, read and written.

    body -> bodies -> rows (JSON, bounded) -> messages -> tensors -> numpy, and back

A tensor travels as JSON numbers, or as raw bytes behind the JSON (the binary extension). Nothing here knows of a
model: what fits one is checked by who asks. Sources: the protocol, https://github.com/kserve/open-inference-protocol
(specification/protocol/inference_rest.md), and its extension,
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md.

Errors name places (`inputs[0].shape`), never what a client wrote there.
"""

#: How `GET /v2` lists the binary extension.
BINARY_EXTENSION = "binary_tensor_data"
#: The header that says where the JSON ends and raw bytes begin; of the body as it is when decompressed.
HEADER_LENGTH = "Inference-Header-Content-Length"
