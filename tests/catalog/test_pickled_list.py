"""Pickles read without executing them: plain data comes out whole, everything else is refused in one line."""

import os
import pickle
import pickletools
import shutil
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spicula.catalog.exam_folders import pickled_list
from spicula.errors import SpiculaError

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(max_size=40)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.tuples(inner, inner, inner, inner)
        | st.dictionaries(st.text() | st.integers(), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(values, st.sampled_from(list(PROTOCOLS)))
def test_plain_data_comes_out_as_it_went_in(value, protocol):
    if protocol < 3:  # bytes then go by way of a text that is encoded again; only short ones are let through
        value = without_bytes(value)
    assert pickled_list.loads(pickle.dumps(value, protocol)) == value


def without_bytes(value):
    if isinstance(value, bytes):
        return list(value)
    if isinstance(value, list | tuple):
        return type(value)(without_bytes(one) for one in value)
    if isinstance(value, dict):
        return {key: without_bytes(one) for key, one in value.items()}
    return value


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_numpy_scalars_become_numbers(protocol):
    kinds = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
    numbers = [np.dtype(kind).type(1) for kind in kinds] + [np.float16(1), np.float32(1), np.float64(1), np.int64(-5)]
    read = pickled_list.loads(pickle.dumps(numbers, protocol))
    assert read == [1] * 12 + [-5]
    assert {type(one) for one in read} == {bool, int, float}
    big = np.dtype(">i4").type(7)
    assert pickled_list.loads(pickle.dumps([big, np.float32(0.5)], protocol)) == [7, 0.5]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_numpy_texts_become_text(protocol):
    assert pickled_list.loads(pickle.dumps([np.str_("0_L_CC"), np.str_("ü")], protocol)) == ["0_L_CC", "ü"]
    with pytest.raises(SpiculaError, match="longer than"):
        pickled_list.loads(pickle.dumps(np.str_("a" * 2000), protocol))


def test_names_of_either_numpy_are_known():
    new = pickle.dumps(np.float64(2.5), 2)
    assert b"numpy._core.multiarray" in new
    assert pickled_list.loads(new.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")) == 2.5


def test_big_endian_scalars():
    kind = np.dtype(">i8")
    reduced = (np.int64(0).__reduce__()[0], (kind, (258).to_bytes(8, "big")))

    class Scalar:
        def __reduce__(self):
            return reduced

    assert pickled_list.loads(pickle.dumps(Scalar(), 4)) == 258


class Evil:
    """Pickles as a call of anything."""

    def __init__(self, function, *arguments):
        self.reduced = (function, arguments)

    def __reduce__(self):
        return self.reduced


CALLS = {
    f"{os.system.__module__}.system": Evil(os.system, "touch /tmp/owned"),
    "builtins.eval": Evil(eval, "1 + 1"),
    "builtins.getattr": Evil(getattr, "a", "upper"),
    "shutil.rmtree": Evil(shutil.rmtree, "/tmp/mine"),
    "builtins.set": Evil(set, [1]),
    "builtins.bytearray": Evil(bytearray, 10),
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", CALLS)
def test_every_other_name_is_refused_by_one_line_that_names_it(name, protocol):
    wanted = name.replace("builtins", "__builtin__") if protocol < 3 else name
    for evil in (CALLS[name], [{"L-CC": CALLS[name]}]):
        with pytest.raises(SpiculaError) as refusal:
            pickled_list.loads(pickle.dumps(evil, protocol))
        assert str(refusal.value) == f"names {wanted}, which is not plain data: refused"


def test_arrays_objects_and_dates_are_refused():
    import datetime

    for value in (
        np.arange(3),
        np.datetime64(1, "D"),
        datetime.date(2020, 1, 1),
        {1, 2},
        frozenset((1,)),
        Evil(int),
        1j,
    ):
        for protocol in PROTOCOLS:
            with pytest.raises(SpiculaError, match="refused") as refusal:
                pickled_list.loads(pickle.dumps([value], protocol))
            assert "\n" not in str(refusal.value)


def op(name, argument=b""):
    (code,) = [one.code for one in pickletools.opcodes if one.name == name]
    return code.encode("latin-1") + argument


NUMPY = b"cnumpy\ndtype\n"
STOP = b"."


@pytest.mark.parametrize(
    "program",
    [
        op("INST", b"os\nsystem\n"),
        b"(" + op("INST", b"os\nsystem\n"),
        b"(" + b"cnumpy\ndtype\n" + op("OBJ"),
        NUMPY + b")" + op("NEWOBJ"),
        NUMPY + b")}" + op("NEWOBJ_EX"),
        b"]}" + op("BUILD"),
        b"]]" + op("REDUCE"),
        b"I1\n)" + op("REDUCE"),
        NUMPY + b"(V" + b"O8" + b"\nt" + op("REDUCE"),
        NUMPY + b"(V" + b"i8" + b"\nt" + op("REDUCE") + b"]b",
        NUMPY + b"(]tR",
        b"cos\nsystem\n(S'x'\ntR",
        op("PERSID", b"1\n"),
        b"I1\n" + op("BINPERSID"),
        op("EXT1", b"\x01"),
        op("EXT4", b"\x01\0\0\0"),
        op("BYTEARRAY8", (4).to_bytes(8, "little") + b"abcd"),
        op("NEXT_BUFFER"),
        op("EMPTY_SET"),
        b"\x8c\x02os\x8c\x06system" + op("STACK_GLOBAL"),
        b"I1\nI2\n" + op("STACK_GLOBAL"),
        b"cx\ny\n",
        NUMPY,  # a name alone is no data
        b"(",
        b"]" + b"]",
        b"",
    ],
)
def test_programs_that_no_list_needs_are_refused(program):
    with pytest.raises(SpiculaError) as refusal:
        pickled_list.loads(program + STOP)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"hello",
        b"]",  # no end
        b".",
        b"0.",
        b"e.",
        b"}(I1\nu.",  # a key without a value
        op("BINGET", b"\x05") + STOP,
        op("BINUNICODE8", (2**62).to_bytes(8, "little")) + STOP,
        op("BINBYTES", b"\xff\xff\xff\x7f") + STOP,
        op("LONG4", b"\xff\xff\xff\x7f") + STOP,
        op("LONG4", b"\xff\xff\xff\xff") + STOP,
        b"L" + b"9" * 5000 + b"L\n.",  # Python converts at most 4300 digits
        b"I1\nI1\n" + op("APPEND") + STOP,
        b"I1\n(u.",
        op("PROTO", b"\xff")[:-1],
    ],
)
def test_what_is_cut_short_or_makes_no_sense(damaged):
    with pytest.raises(SpiculaError, match="pickle"):
        pickled_list.loads(damaged)


def test_a_huge_place_in_the_memory_takes_no_memory():
    read = pickled_list.loads(
        b"]" + op("LONG_BINPUT", b"\xff\xff\xff\x7f") + op("LONG_BINGET", b"\xff\xff\xff\x7f") + b"0."
    )
    assert read == []


def test_keys_that_would_take_for_ever_to_hash_are_refused():
    nested = b")" + b"2\x86" * 200  # a pair of a pair of a pair ...: 2 ** 200 hashes
    with pytest.raises(SpiculaError, match="keys are neither text nor numbers"):
        pickled_list.loads(b"}" + nested + b"I1\ns.")


def test_lists_in_lists_are_bounded_by_the_file():
    deep = b"]" * 100_000 + b"a" * 99_999 + STOP
    assert isinstance(pickled_list.loads(deep), list)
    doubled = pickled_list.loads(b"]" + b"2\x86" * 5000 + STOP)  # never walked through
    assert isinstance(doubled, tuple)


def test_a_list_in_itself_is_read():
    read = pickled_list.loads(b"]2a.")
    assert read[0] is read


def test_encoding_the_same_text_again_and_again_is_refused():
    program = (
        b"c_codecs\nencode\n(" + op("BINUNICODE", (4097).to_bytes(4, "little") + b"a" * 4097) + b"\x8c\x06latin1tR."
    )
    with pytest.raises(SpiculaError, match="longer than 4096 characters"):
        pickled_list.loads(program)


def test_large_files_and_long_programs_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "list.pkl"
    path.write_bytes(pickle.dumps([1] * 100))
    monkeypatch.setattr(pickled_list, "MAX_BYTES", 50)
    with pytest.raises(SpiculaError, match="at most 50 are read"):
        pickled_list.read(path)
    monkeypatch.setattr(pickled_list, "MAX_BYTES", 5000)
    monkeypatch.setattr(pickled_list, "MAX_INSTRUCTIONS", 50)
    with pytest.raises(SpiculaError, match="more than 50 instructions"):
        pickled_list.read(path)


@given(st.binary(max_size=300))
def test_any_bytes_are_data_or_a_refusal(data):
    try:
        pickled_list.loads(data)
    except SpiculaError as error:
        assert "\n" not in str(error)


@given(values, st.data())
def test_any_damage_is_data_or_a_refusal(value, draw):
    data = bytearray(pickle.dumps([value, np.float64(1)], draw.draw(st.sampled_from(list(PROTOCOLS)))))
    for _ in range(draw.draw(st.integers(1, 4))):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    try:
        pickled_list.loads(bytes(data))
    except SpiculaError as error:
        assert "\n" not in str(error)


def test_nothing_was_called():
    code = (
        "import sys, pickle\n"
        "from spicula.catalog.exam_folders import pickled_list\n"
        "def no(event, arguments):\n"
        "    assert event != 'pickle.find_class' and event != 'os.system', event\n"
        "sys.addaudithook(no)\n"
        "try: pickled_list.loads(b'cos\\nsystem\\n(S\\'touch owned\\'\\ntR.')\n"
        "except Exception as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "names os.system, which is not plain data: refused\n"
