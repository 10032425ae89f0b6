"""The wire format of KServe v2: what is written is read again, what is malformed is a problem."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from spicula.serving.kserve import datatypes, messages, tensors
from spicula.serving.limits import Limits
from spicula.serving.problems import Problem

LIMITS = Limits()
TINY = Limits(["json-bytes=20000", "tensor-bytes=4096", "json-text-bytes=4000", "json-depth=8"])


def same(found, wanted):
    assert found.shape == wanted.shape
    assert np.array_equal(found, wanted, equal_nan=wanted.dtype.kind == "f")


@st.composite
def tensor(draw, datatype, finite):
    """An array of a datatype."""
    shape = draw(st.lists(st.integers(0, 4), max_size=4))
    if datatype == "BYTES":
        element = (
            st.text(st.characters(exclude_categories=["Cs"]), max_size=5).map(str.encode) if finite else st.binary()
        )
        count = int(np.prod(shape))
        values = draw(st.lists(element, min_size=count, max_size=count))
        array = np.empty(count, object)
        array[:] = values
        return array.reshape(shape)
    dtype = datatypes.DTYPES[datatype]
    # of one width: hypothesis draws floats of the width that it is told
    options = {"allow_nan": not finite, "allow_infinity": not finite} if dtype.kind == "f" else {}
    array = draw(arrays.arrays(dtype, tuple(shape), elements=arrays.from_dtype(dtype, **options)))
    if datatype == "BF16":
        array = (np.ascontiguousarray(array).view("<u4") & 0xFFFF0000).view("<f4").reshape(shape)
        array[np.isnan(array)] = np.nan
    return array


@pytest.mark.parametrize("datatype", datatypes.DTYPES)
@pytest.mark.parametrize("is_raw", [True, False], ids=["raw", "json"])
@settings(max_examples=25)
@given(data=st.data())
def test_a_request_is_read_as_it_was_written(datatype, is_raw, data):
    first = data.draw(tensor(datatype, finite=not is_raw))
    second = data.draw(tensor(datatype, finite=not is_raw))
    inputs = {"a": (datatype, first), "b": (datatype, second)}
    written = messages.write_request(inputs, ["y"] if data.draw(st.booleans()) else [], is_raw=is_raw, id="7")
    request = messages.read_request(written.body, written.header_length, LIMITS)
    assert request.id == "7"
    assert request.wants_raw("y") == is_raw
    for one, (name, (_, wanted)) in zip(request.inputs, inputs.items(), strict=True):
        assert (one.name, one.datatype) == (name, datatype)
        same(one.array(), wanted)


@pytest.mark.parametrize("datatype", datatypes.DTYPES)
@settings(max_examples=25)
@given(data=st.data())
def test_an_answer_is_read_as_it_was_written(datatype, data):
    plain, raw = data.draw(tensor(datatype, finite=True)), data.draw(tensor(datatype, finite=False))
    outputs = {"plain": (datatype, plain, False), "raw": (datatype, raw, True)}
    written = messages.write_answer("m", "1", outputs, id="x", parameters={"digest": "0", "time": "now"})
    assert written.headers["Content-Type"] == "application/octet-stream"
    answer = messages.read_answer(written.body, int(written.headers["Inference-Header-Content-Length"]), LIMITS)
    assert (answer.model, answer.version, answer.id) == ("m", "1", "x")
    assert answer.parameters == {"digest": "0", "time": "now"}
    same(answer.outputs[0].array(), plain)
    same(answer.outputs[1].array(), raw)


@given(data=st.data(), indent=st.sampled_from([None, 1]))
def test_long_lists_are_read_in_every_form_that_json_has(data, indent):
    shape = data.draw(st.sampled_from([(3000,), (2, 1500), (5, 3, 200), (3000, 1), (1, 1, 3000)]))
    array = np.random.default_rng(data.draw(st.integers(0, 9))).normal(size=shape)
    values = array.tolist() if data.draw(st.booleans()) else array.reshape(-1).tolist()
    item = {"name": "x", "datatype": "FP64", "data": values, "shape": list(shape)}
    text = json.dumps({"parameters": {"k": "[1,2]"}, "inputs": [item]}, indent=indent).encode()
    (found,) = messages.read_request(text, None, LIMITS).inputs
    same(found.array(), array)


def test_long_lists_of_every_datatype():
    for datatype, dtype in datatypes.DTYPES.items():
        if datatype == "BYTES":
            continue
        array = (np.arange(200_000) % 100).astype(dtype)
        written = messages.write_request({"x": (datatype, array)}, [], is_raw=False)
        (found,) = messages.read_request(written.body, None, LIMITS).inputs
        same(found.array(), array)


@pytest.mark.parametrize("shape", [[600, 0], [600, 2, 0], [0, 600]])
def test_long_lists_of_nothing(shape):
    data = np.zeros(shape).tolist()
    for text in (json.dumps(data), json.dumps(data, indent=9), " " * 2000 + "[]"):
        item = f'{{"name": "x", "datatype": "FP32", "shape": {shape}, "data": {text}}}'
        (found,) = messages.read_request(f'{{"inputs": [{item}]}}'.encode(), None, LIMITS).inputs
        assert found.array().shape == tuple(shape)


def test_64_bits_keep_all_their_digits():
    array = np.array([2**63 - 1, -(2**63)] + [2**53 + 1] * 200, np.int64)
    written = messages.write_request({"x": ("INT64", array)}, [], is_raw=False)
    same(messages.read_request(written.body, None, LIMITS).inputs[0].array(), array)


def test_raw_tensors_are_not_copied():
    array = np.arange(1000, dtype=np.float32)
    assert np.shares_memory(np.frombuffer(datatypes.to_raw("FP32", array), np.float32), array)
    body = bytearray(messages.write_request({"x": ("FP32", array)}, [], is_raw=True).body)
    length = body.index(b"}]}") + 3
    (found,) = messages.read_request(body, length, LIMITS).inputs
    body[-4:] = np.float32(7).tobytes()
    assert found.array()[-1] == 7


def test_bf16_is_the_upper_half_of_float32_rounded():
    values = np.array([1.0, 1.00390625, 1.01171875, -3.4e38, np.inf, np.nan, 1e-45], np.float32)
    halves = np.frombuffer(datatypes.to_raw("BF16", values), "<u2")
    # 1 + 2**-8 lies in the middle and goes to the even one, as does 1 + 3 * 2**-8; beyond the largest is infinite
    assert halves.tolist() == [0x3F80, 0x3F80, 0x3F82, 0xFF80, 0x7F80, 0x7FC0, 0]


def body(**changes):
    item = {"name": "x", "datatype": "FP32", "shape": [2, 2], "data": [1, 2, 3, 4]} | changes
    return {key: value for key, value in item.items() if value is not None}


@pytest.mark.parametrize(
    ("changes", "code", "place"),
    [
        ({"datatype": "FP8"}, "datatype", "inputs[0].datatype"),
        ({"datatype": None}, "datatype", "inputs[0].datatype"),
        ({"datatype": ["FP32"]}, "datatype", "inputs[0].datatype"),
        ({"name": None}, "tensor", "inputs[0].name"),
        ({"name": "n" * 300}, "tensor", "inputs[0].name"),
        ({"shape": [2, -2]}, "shape", "inputs[0].shape"),
        ({"shape": [2.0, 2]}, "shape", "inputs[0].shape"),
        ({"shape": [True, 4]}, "shape", "inputs[0].shape"),
        ({"shape": "4"}, "shape", "inputs[0].shape"),
        ({"shape": [1] * 17}, "shape", "inputs[0].shape"),
        ({"shape": [3]}, "shape", "inputs[0].data"),
        ({"shape": [2, 3]}, "shape", "inputs[0].data"),
        ({"shape": [0, 10**30]}, "tensor-bytes", "inputs[0].shape"),
        ({"shape": [10**6, 10**6]}, "tensor-bytes", "inputs[0].shape"),
        ({"data": None}, "tensor", "inputs[0] has either"),
        ({"data": 5}, "tensor", "inputs[0].data"),
        ({"data": {"0": 1}}, "tensor", "inputs[0].data"),
        ({"data": [[1, 2], [3]]}, "shape", "inputs[0].data"),
        ({"data": [[1, 2, 3, 4]]}, "shape", "inputs[0].data"),
        ({"data": [1, 2, 3, "4"]}, "value", "inputs[0].data"),
        ({"data": [1, 2, 3, True]}, "value", "inputs[0].data"),
        ({"data": [1, 2, 3, None]}, "value", "inputs[0].data"),
        ({"data": [1, 2, 3, 1e39]}, "value", "inputs[0].data"),
        ({"data": [1, 2, 3, 10**400]}, "value", "inputs[0].data"),
        ({"data": [1, 2, 3, 256], "datatype": "UINT8"}, "value", "inputs[0].data"),
        ({"data": [1, 2, 3, 4.0], "datatype": "INT8"}, "value", "inputs[0].data"),
        ({"data": [0, 1, 1, 1], "datatype": "BOOL"}, "value", "inputs[0].data"),
        ({"data": ["a", "b", "c", "\ud800"], "datatype": "BYTES"}, "value", "inputs[0].data"),
        ({"parameters": {"shared_memory_region": "r"}}, "tensor", "inputs[0]"),
        ({"parameters": []}, "parameters", "inputs[0].parameters"),
        ({"parameters": {"binary_data_size": 16}}, "tensor", "inputs[0] has either"),
        ({"data": None, "parameters": {"binary_data_size": -1}}, "binary", "inputs[0].parameters"),
        ({"data": None, "parameters": {"binary_data_size": True}}, "binary", "inputs[0].parameters"),
        ({"data": None, "parameters": {"binary_data_size": 16}}, "binary", "inputs[0] has 16 bytes"),
    ],
)
def test_a_tensor_that_is_not_one(changes, code, place):
    with pytest.raises(Problem) as refused:
        (one,) = messages.read_request(json.dumps({"inputs": [body(**changes)]}).encode(), None, LIMITS).inputs
        one.array()
    assert refused.value.code == code
    assert refused.value.status == (413 if code in LIMITS else 400)
    assert refused.value.detail.startswith(place)


@pytest.mark.parametrize(
    ("document", "code"),
    [
        ({}, "tensor"),
        ({"inputs": []}, "tensor"),
        ({"inputs": {}}, "tensor"),
        ({"inputs": ["x"]}, "tensor"),
        ({"inputs": [body(), body()]}, "tensor"),
        ({"inputs": [body()], "id": 7}, "tensor"),
        ({"inputs": [body()], "id": "i" * 257}, "tensor"),
        ({"inputs": [body()], "parameters": [1]}, "parameters"),
        ({"inputs": [body()], "parameters": {"a": {}}}, "parameters"),
        ({"inputs": [body()], "parameters": {"binary_data_output": 1}}, "parameters"),
        ({"inputs": [body()], "outputs": {}}, "tensor"),
        ({"inputs": [body()], "outputs": ["y"]}, "tensor"),
        ({"inputs": [body()], "outputs": [{}]}, "tensor"),
        ({"inputs": [body()], "outputs": [{"name": "y"}, {"name": "y"}]}, "tensor"),
        ({"inputs": [body()], "outputs": [{"name": "y", "parameters": {"binary_data": "yes"}}]}, "parameters"),
        ({"inputs": [body()], "outputs": [{"name": "y", "parameters": {"classification": 3}}]}, "parameters"),
        ([], "json"),
        ("inputs", "json"),
        (None, "json"),
    ],
)
def test_a_request_that_is_none(document, code):
    with pytest.raises(Problem) as refused:
        messages.read_request(json.dumps(document).encode(), None, LIMITS)
    assert (refused.value.status, refused.value.code) == (400, code)


LONG = ", ".join(["1"] * 1000)


@pytest.mark.parametrize(
    "data",
    [
        f"[{LONG}, ]",
        f"[, {LONG}]",
        f"[{LONG}",
        f"{LONG}]",
        f"[{LONG}]]",
        f"[[{LONG}]",
        f"[{LONG}]1",
        f"[]{LONG}",
        f"[[{LONG}]1]",
        f"[1[{LONG}]]",
        f"[{LONG} 1]",
        f"[{LONG}][{LONG}]",
        f"[{LONG}, 1]",
        f"[[{LONG}], []]",
        f"[[[{LONG}]]]",
        f"[{LONG[:-1]}1e400]",
        f"[{LONG[:-1]}01]",
        f"[{LONG[:-1]}+1]",
        f"[{LONG[:-1]}.5]",
        f"[{LONG[:-1]}-]",
        f"[{LONG[:-1]}true]",
        f"[{LONG[:-1]}turtle]",
        f"[{LONG[:-1]}NaN]",
        f"[{LONG[:-1]}Infinity]",
        f"[{LONG[:-1]}null]",
        f'[{LONG[:-1]}"1"]',
        f"[{LONG[:-1]}{'1' * 100_000}]",
        "[" * 2000 + "]" * 2000,
    ],
    ids=range(28),
)
def test_a_long_list_that_is_no_list_of_the_shape(data):
    text = f'{{"inputs": [{{"name": "x", "datatype": "FP32", "shape": [1, 1000], "data": {data}}}]}}'
    with pytest.raises(Problem) as refused:
        messages.read_request(text.encode(), None, LIMITS).inputs[0].array()
    assert refused.value.status == 400


@pytest.mark.parametrize("shape", [[1000], [1, 1000], [1000, 1], [10, 100]])
def test_nesting_is_that_of_the_shape(shape):
    for other in ([1000], [1, 1000], [1000, 1], [10, 100]):
        data = np.ones(other, int).tolist()
        text = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": shape, "data": data}]}).encode()
        (one,) = messages.read_request(text, None, LIMITS).inputs
        if other in ([1000], shape):
            assert one.array().shape == tuple(shape)
        else:
            with pytest.raises(Problem, match="nested otherwise"):
                one.array()


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (b"", "json"),
        (b"{", "json"),
        (b"\xff\xfe{}", "json"),
        ('{"inputs": 1}'.encode("utf-16"), "json"),
        (b'{"inputs": "\xc3\x28"}', "json"),
        (b'{"inputs": NaN}', "json"),
        (b'{"inputs": ' + b"9" * 5000 + b"}", "json-text-bytes"),
        (b'{"a": "' + b"x" * 5000 + b'"}', "json-text-bytes"),
        (b'{"a": "' + b"x" * 5000, "json-text-bytes"),
        (b'{"a": [' + b'"",' * 3000 + b'""]}', "json-text-bytes"),
        (b'{"a": [' + b"1," * 15000 + b"1]}", "json-bytes"),
        (b'{"a": ' + b"[" * 9 + b"]" * 9 + b"}", "json-depth"),
        (b'{"a": ' * 9 + b"1" + b"}" * 9, "json-depth"),
        (b'{"a": ' + b"[" * 3000, "json-depth"),
    ],
)
def test_text_that_is_no_request(text, code):
    with pytest.raises(Problem) as refused:
        messages.read_request(text, None, TINY)
    assert refused.value.code == code
    assert refused.value.status == (413 if code.endswith("bytes") else 400)


def test_raw_bytes_have_to_be_those_of_the_tensors():
    array = np.zeros((2, 3), np.float32)
    written = messages.write_request({"a": ("FP32", array), "b": ("FP32", array)}, [], is_raw=True)
    whole, length = written.body, written.header_length
    for wrong, at in ((whole[:-1], length), (whole + b"0", length), (whole, length - 1), (whole[:length], length + 1)):
        with pytest.raises(Problem) as refused:
            messages.read_request(wrong, at, LIMITS)
        assert refused.value.status == 400
    with pytest.raises(Problem, match="its shape and datatype have 24"):
        changed = whole.replace(b'"binary_data_size":24', b'"binary_data_size":23', 1)
        messages.read_request(changed, length, LIMITS)


@pytest.mark.parametrize("raw", [b"", b"\1\0\0", b"\2\0\0\0a", b"\1\0\0\0a", b"\1\0\0\0a\1\0\0\0b\0", b"\xff" * 8])
def test_raw_bytes_that_are_not_two_elements(raw):
    with pytest.raises(Problem, match="its bytes are not as many elements"):
        datatypes.from_raw("BYTES", (2,), memoryview(raw), "inputs[0]")


def test_tensors_are_counted_together():
    array = np.zeros(600, np.float32)
    written = messages.write_request({"a": ("FP32", array), "b": ("FP32", array)}, [], is_raw=True)
    with pytest.raises(Problem) as refused:
        messages.read_request(written.body, written.header_length, TINY)
    assert (refused.value.status, refused.value.code) == (413, "tensor-bytes")


def test_what_json_cannot_say_is_not_written():
    with pytest.raises(ValueError, match="JSON"):
        messages.write_request({"x": ("FP32", np.array([np.nan], np.float32))}, [], is_raw=False)


def small_texts():
    """JSON of a request with something wrong in it: cut, doubled, a byte changed."""
    array = np.ones((2, 300), np.float32)
    written = messages.write_request(
        {"x": ("FP32", array), "y": ("BYTES", np.array([b"a"], object))}, ["p"], is_raw=False
    )
    raw = messages.write_request({"x": ("FP32", array), "y": ("BYTES", np.array([b"a"], object))}, ["p"], is_raw=True)
    return [(written.body, None), (raw.body, raw.header_length)]


@given(
    which=st.integers(0, 1),
    at=st.integers(0, 5000),
    byte=st.integers(0, 255),
    way=st.sampled_from(["cut", "put", "set"]),
)
def test_a_damaged_request_is_read_or_is_a_problem(which, at, byte, way):
    whole, length = small_texts()[which]
    at %= len(whole)
    damaged = whole[:at] + {"cut": b"", "put": bytes([byte]) + whole[at:], "set": bytes([byte]) + whole[at + 1 :]}[way]
    try:
        for one in messages.read_request(damaged, length, LIMITS).inputs:
            one.array()
    except Problem as problem:
        assert 400 <= problem.status < 500


@given(st.binary(max_size=200), st.none() | st.integers(0, 250))
def test_any_bytes_are_a_request_or_a_problem(data, length):
    with pytest.raises(Problem):
        messages.read_request(data, length, LIMITS)


def test_errors_do_not_repeat_what_was_sent():
    canary = "Canary^Jane"
    for changes in ({"datatype": canary}, {"name": canary * 99}, {"data": [canary]}, {"shape": [canary]}, {canary: 1}):
        with pytest.raises(Problem) as refused:
            request = messages.read_request(
                json.dumps({"inputs": [body(**changes) | {"shape": [1]} | changes]}).encode(), None, LIMITS
            )
            request.inputs[0].array()
        assert "Canary" not in refused.value.detail


def test_the_answer_of_a_server_may_lack_a_version():
    text = b'{"model_name": "m", "outputs": [{"name": "y", "datatype": "FP32", "shape": [1], "data": [0.5]}]}'
    assert messages.read_answer(text, None, LIMITS).version is None
    assert tensors.as_json({"a": 1}) == b'{"a":1}'
