import pytest
import torch

from spicula.errors import UsageError
from spicula.training import device


def test_a_device_that_is_not_there_is_refused_with_the_way_out():
    with pytest.raises(UsageError, match=r"no device 'cuda:99' here .* use auto or cpu"):
        device.choose("cuda:99", "auto")
    with pytest.raises(UsageError, match="no device 'abacus'"):
        device.choose("abacus", "auto")


def test_float16_is_for_gpus():
    with pytest.raises(UsageError, match="float16 needs a GPU"):
        device.choose("cpu", "float16")


@pytest.mark.parametrize(
    ("flags", "precision"),
    [("fpu avx512f avx512_bf16", "bfloat16"), ("fpu amx_bf16", "bfloat16"), ("fpu avx512f", "float32")],
)
def test_bfloat16_is_used_where_the_processor_multiplies_it(tmp_path, monkeypatch, flags, precision):
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\nbugs\t\t: none\n")
    monkeypatch.setattr(device, "_CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(device.platform, "system", lambda: "Linux")
    device._cpu_multiplies_bf16.cache_clear()
    try:
        assert device.choose("cpu", "auto").precision == precision
        assert device.choose("cpu", "float32").precision == "float32"
    finally:
        device._cpu_multiplies_bf16.cache_clear()


@pytest.mark.parametrize(("precision", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_the_network_computes_with_that_precision(precision, dtype):
    with device.choose("cpu", precision).autocast:
        assert (torch.rand(4, 4) @ torch.rand(4, 4)).dtype == dtype
