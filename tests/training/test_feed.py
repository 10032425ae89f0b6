import numpy as np
import pytest
import torch

from spicula.imaging.preprocess import Preprocess
from spicula.imaging.store import build_store
from spicula.training import memory
from spicula.training.feed import READ_AHEAD, Feed

CPU = torch.device("cpu")


@pytest.fixture(params=[(8, 1), (8, 3), (16, 1), (16, 3)], ids=lambda p: f"{p[0]} bits, {p[1]} channels")
def store(request, study, tmp_path):
    bits, channels = request.param
    preprocess = Preprocess(size=(24, 16), channels=channels, bits=bits)
    return build_store(study.table.slice(0, 20), preprocess, tmp_path / "store", jobs=1)


@pytest.mark.parametrize(("share", "place"), [(1.0, "memory"), (0.0, "stream")])
def test_batches_are_the_stores_images_as_numbers_from_0_to_1(store, share, place):
    rows = np.arange(20)[::-1].copy()
    feed = Feed(store, rows, CPU, memory_share=share)
    assert (feed.place, len(feed)) == (place, 20)
    order = [np.array([3, 1, 19]), np.array([0, 0]), np.array([7]), np.array([5, 6, 7, 8])]
    batches = list(feed.batches(order))
    for positions, batch in zip(order, batches, strict=True):
        expected = store.read(rows[positions]).transpose(0, 3, 1, 2) / np.iinfo(store.dtype).max
        assert batch.dtype == torch.float32
        assert batch.is_contiguous(memory_format=torch.channels_last)
        assert batch.numpy() == pytest.approx(expected, abs=1e-7)
    assert max(float(batch.max()) for batch in batches) > 0.5


class CountingStore:
    """A Store whose reads are counted."""

    def __init__(self, store):
        self.shape, self.dtype, self._store, self.reads = store.shape, store.dtype, store, 0

    def read(self, rows):
        self.reads += 1
        return self._store.read(rows)


def test_a_stream_reads_only_a_little_ahead(study):
    store = CountingStore(study.store)
    feed = Feed(store, np.arange(100), CPU, memory_share=0.0)
    assert store.reads == 0
    batches = feed.batches([np.array([n]) for n in range(100)])
    next(batches)
    assert 1 <= store.reads <= READ_AHEAD + 1
    batches.close()
    assert store.reads <= READ_AHEAD + 1


def test_images_in_memory_are_read_once(study):
    store = CountingStore(study.store)
    feed = Feed(store, np.arange(100), CPU, memory_share=1.0)
    before = store.reads
    for _ in range(3):
        assert sum(len(batch) for batch in feed.batches([np.arange(50), np.arange(50, 100)])) == 100
    assert store.reads == before


def test_an_error_of_the_store_reaches_the_reader(study):
    feed = Feed(study.store, np.array([0, 10_000]), CPU, memory_share=0.0)
    with pytest.raises(Exception, match="asked for"):
        list(feed.batches([np.array([0, 1])]))


def test_free_memory_heeds_the_machine_and_the_container(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    assert memory.free_bytes(CPU) == memory.UNKNOWN_BYTES
    (tmp_path / "meminfo").write_text("MemTotal: 9000 kB\nMemFree: 10 kB\nMemAvailable: 4000 kB\n")
    assert memory.free_bytes(CPU) == 4000 * 1024
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("5000\n")
    assert memory.free_bytes(CPU) == 4000 * 1024
    (tmp_path / "memory.max").write_text("6000\n")
    assert memory.free_bytes(CPU) == 1000
