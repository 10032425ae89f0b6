"""Shards: which image is in which, what stays when something changes, and what a kill leaves behind."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shard_tools import contents, make_sample, pack
from small_archive import grey, save_png

from spicula import files, index
from spicula.convert import Settings, convert, holdings
from spicula.convert.formats import name_of
from spicula.convert.grouping import group
from spicula.errors import SpiculaError

FORMATS = ("webdataset", "tfrecord", "parquet")
#: Limit that leaves room for a few of the images of `make_sample`.
SMALL = 2**16 + 20_000
#: A dozen.
MIDDLE = 2**16 + 80_000


def shards_of(folder: Path) -> set[tuple[int, int]]:
    """What tells the shards of a folder from rewritten ones, whatever their names."""
    found = {path.stat() for path in folder.rglob("*-0*") if path.is_file()}
    return {(status.st_ino, status.st_mtime_ns) for status in found}


# grouping

SIZES = st.lists(st.integers(1, 120), max_size=200)


@given(SIZES)
def test_groups_hold_every_image_once_and_are_bounded(sizes):
    groups = group([str(number) for number in range(len(sizes))], sizes, 100)
    assert [number for one in groups for number in one] == list(range(len(sizes)))
    for one in groups:
        assert len(one) == 1 or sum(sizes[number] for number in one) <= 100


@given(SIZES.map(lambda sizes: [min(size, 25) for size in sizes]))
def test_groups_are_at_least_half_full(sizes):
    groups = group([str(number) for number in range(len(sizes))], sizes, 100)
    assert all(sum(sizes[number] for number in one) >= 50 for one in groups[:-1])


@given(st.integers(0, 3000), st.integers(1, 10))
def test_a_new_image_changes_few_groups(at, size):
    names = [f"image {number}" for number in range(3000)]
    sizes = [1 + number * 7 % 10 for number in range(3000)]
    before = {tuple(names[number] for number in one) for one in group(names, sizes, 200)}
    names.insert(at, "new")
    sizes.insert(at, size)
    after = {tuple(names[number] for number in one) for one in group(names, sizes, 200)}
    assert len(before) > 80
    assert len(after - before) < 20


# packing


@pytest.mark.parametrize("format", FORMATS)
def test_the_table_leads_to_every_png(tmp_path, format):
    samples = [make_sample(number, split=["train", None][number % 2], masks=number % 3) for number in range(20)]
    pack(tmp_path, format, samples, limit=SMALL)
    table = pq.read_table(tmp_path / "shards.parquet")
    assert sorted(table["image_id"].to_pylist()) == sorted(sample.row["image_id"] for sample in samples)
    assert index.validate(index.with_root(table.select(index.SCHEMA.names), tmp_path)) is not None
    png_of = {sample.row["image_id"]: sample.image for sample in samples}
    positions: dict[str, list[int]] = {}
    for row in table.to_pylist():
        shard = tmp_path / row["shard"]
        data = shard.read_bytes()
        assert data[row["offset"] : row["offset"] + row["bytes"]] == png_of[row["image_id"]]
        assert (row["shard_bytes"], row["shard_sha256"]) == (len(data), files.sha256_file(shard))
        assert len(data) <= SMALL
        positions.setdefault(row["shard"], []).append(row["position"])
    assert len(positions) > 3
    assert all(numbers == list(range(len(numbers))) for numbers in positions.values())
    assert not list((tmp_path / ".spicula" / "held").glob("*"))


@pytest.mark.parametrize("format", FORMATS)
def test_only_shards_near_a_change_are_written_again(tmp_path, format):
    samples = [make_sample(number) for number in range(200)]
    pack(tmp_path / "a", format, samples, limit=MIDDLE)
    before = shards_of(tmp_path / "a")
    more = [*samples[:100], make_sample(200), *samples[100:], make_sample(201)]
    pack(tmp_path / "a", format, more, limit=MIDDLE)
    after = shards_of(tmp_path / "a")
    assert len(after) > 20
    assert len(after - before) <= 6
    pack(tmp_path / "b", format, more, limit=MIDDLE)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")  # as if they had always been there


@pytest.mark.parametrize("format", FORMATS)
def test_whatever_changes_the_result_is_that_of_a_first_run(tmp_path, format):
    samples = [make_sample(number, split=["train", "test"][number % 2], masks=number % 2) for number in range(20)]
    changes = {
        "fewer": samples[3:17],
        "other order": samples[::-1],
        "other labels": [_relabelled(sample) for sample in samples],
        "other splits": [make_sample(number, split="val", masks=number % 2) for number in range(20)],
        "none": [],
        "again": samples,
    }
    for what, now in changes.items():
        pack(tmp_path / "a", format, now, limit=SMALL)
        pack(tmp_path / what, format, now, limit=SMALL)
        assert contents(tmp_path / "a") == contents(tmp_path / what), what
    pack(tmp_path / "a", format, samples, limit=2**16 + 40_000)
    pack(tmp_path / "larger", format, samples, limit=2**16 + 40_000)
    assert contents(tmp_path / "a") == contents(tmp_path / "larger")


def _relabelled(sample):
    return type(sample)({**sample.row, "label": "other"}, sample.image, sample.masks, sample.record)


@pytest.mark.parametrize("damage", ["gone", "cut short", "table"])
def test_what_is_damaged_is_not_there(tmp_path, damage):
    pack(tmp_path, "webdataset", [make_sample(number) for number in range(20)], limit=SMALL)
    row = pq.read_table(tmp_path / "shards.parquet").slice(0, 1).to_pylist()[0]
    lost = next(holding for holding in holdings.scan(tmp_path) if holding.place == row["shard"])
    if damage == "gone":
        lost.file.unlink()
    elif damage == "cut short":
        os.truncate(lost.file, lost.nbytes - 1)
    else:
        lost.table_path.write_bytes(b"PAR1")
    there = holdings.pieces(holdings.scan(tmp_path))
    assert set(lost.table["key"].to_pylist()).isdisjoint(there)
    assert len(there) == 20 - len(lost.table)


def test_bytes_that_changed_are_not_copied_on(tmp_path):
    samples = [make_sample(number) for number in range(6)]
    pack(tmp_path, "webdataset", samples)
    shard = tmp_path / "made_up-unsplit-000000.tar"
    data = bytearray(shard.read_bytes())
    data[600] ^= 1
    shard.write_bytes(data)
    changed = samples[1:] + samples[:1]
    with pytest.raises(SpiculaError, match="was changed since it was written; delete it and convert again") as refusal:
        pack(tmp_path, "webdataset", changed)
    Path(str(refusal.value).split(" was changed")[0]).unlink()
    pack(tmp_path, "webdataset", changed)
    pack(tmp_path / "b", "webdataset", changed)
    assert (tmp_path / "made_up-unsplit-000000.tar").read_bytes() == (
        tmp_path / "b" / "made_up-unsplit-000000.tar"
    ).read_bytes()


@pytest.mark.parametrize(
    ("datasets", "name"),
    [
        (["vindr-mammo"] * 2, "vindr_mammo"),
        (["a", "b"], "images"),
        ([], "images"),
        (["2x"], "images"),
        (["Ä"], "images"),
    ],
)
def test_the_name_is_that_of_the_dataset(datasets, name):
    assert name_of(datasets) == name


#: Packs in a process that dies, like one that is killed, before the K-th change of the file system.
CRASH = """
import json, os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from shard_tools import make_sample, pack

SMALL = 2**16 + 20_000
work, reference, format = Path(sys.argv[2]), Path(sys.argv[3]), "webdataset"

def samples(numbers):
    return [make_sample(number, split=["train", "test"][number % 2]) for number in numbers]

OLD, NEW = list(range(12)), [20, *range(2, 9), 21, 22, *range(9, 12), 23]

def run(step):
    child = os.fork()
    if child == 0:
        step()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def dying(count):
    def step():
        left = [count]
        def counted(real):
            def call(*arguments, **named):
                if left[0] == 0:
                    os._exit(9)
                left[0] -= 1
                return real(*arguments, **named)
            return call
        for name in ("rename", "replace", "unlink", "rmdir", "mkdir"):
            setattr(os, name, counted(getattr(os, name)))
        pack(work, format, samples(NEW), limit=SMALL)
    return step

assert run(lambda: pack(reference / "old", format, samples(OLD), limit=SMALL)) == 0
assert run(lambda: pack(reference / "new", format, samples(NEW), limit=SMALL)) == 0
from shard_tools import contents
expected = contents(reference / "new")
import shutil
for count in range(1000):
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(reference / "old", work)
    status = run(dying(count))
    assert status in (0, 9), status
    if status == 9:
        assert run(lambda: pack(work, format, samples(NEW), limit=SMALL)) == 0, count
    for leftover in work.glob("**/.part-*"):
        leftover.unlink()
    assert contents(work) == expected, count
    if status == 0:
        break
print(count)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_death_before_any_change_of_the_file_system_is_made_good(tmp_path):
    arguments = [str(Path(__file__).parent), tmp_path / "work", tmp_path / "reference"]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CRASH, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 20


# the whole conversion


@pytest.mark.parametrize("format", FORMATS)
def test_a_conversion_to_shards(twenty, tmp_path, format):
    tree = convert(twenty, tmp_path / "tree", Settings.of())
    (tmp_path / "images" / "a" / "i04.png").write_bytes(b"broken")
    outcome = convert(twenty, tmp_path / "out", Settings.of(format=format), jobs=2)
    assert len(outcome.index) == 19
    assert outcome.rejected.to_pylist()[0]["path"] == "a/i04.png"
    table = pq.read_table(tmp_path / "out" / "shards.parquet")
    assert table.select(index.SCHEMA.names).to_pylist() == outcome.index.to_pylist()
    root = index.root_of(tree.index)
    for row in table.to_pylist():
        with (tmp_path / "out" / row["shard"]).open("rb") as stream:
            stream.seek(row["offset"])
            assert stream.read(row["bytes"]) == (root / row["path"]).read_bytes()
    again = convert(twenty, tmp_path / "out", Settings.of(format=format), jobs=1)
    assert again.made == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "out")


def test_labels_and_sizes_change_without_reading_an_image(twenty, tmp_path):
    first = convert(twenty, tmp_path / "out", Settings.of(format="webdataset"))
    shutil.rmtree(tmp_path / "images")
    table = index.read(twenty)
    rows = [{**row, "label": "benign", "split": "test"} for row in table.to_pylist()]
    index.write(tmp_path / "labelled.parquet", index.from_rows(rows, index.root_of(table)))
    second = convert(tmp_path / "labelled.parquet", tmp_path / "out", Settings.of(format="webdataset", shard_mb=1))
    assert (second.made, len(second.rejected)) == (0, 0)
    assert second.index["sha256"].equals(first.index["sha256"])
    assert set(second.index["label"].to_pylist()) == {"benign"}
    assert [path.name for path in (tmp_path / "out").glob("*.tar")] == ["test-test-000000.tar"]


def count_files(folder):
    return sum(len(names) for _, _, names in os.walk(folder))


@pytest.mark.slow
def test_a_conversion_killed_at_random_ends_as_if_it_had_not_been(tmp_path, indexed):
    root = tmp_path / "images"
    for number in range(120):
        save_png(root / f"i{number:03}.png", grey(600, 500, seed=number))
    table = indexed(root, [{"path": path.name} for path in sorted(root.glob("*.png"))])
    command = [sys.executable, "-m", "spicula", "convert", str(table), "--format", "tfrecord", "--shard-size", "2"]
    chance = random.Random(4)
    kills = 0
    while True:
        # Killed in the middle of its work, whatever the machine's speed: when so many more files are there.
        enough = count_files(tmp_path / "out") + chance.randint(1, 3)
        process = subprocess.Popen(
            [*command, "--to", str(tmp_path / "out"), "--jobs", "2", "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        while process.poll() is None and (kills == 4 or count_files(tmp_path / "out") < enough):
            time.sleep(0.005)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        output, _ = process.communicate()
        if process.returncode != -signal.SIGKILL:
            break
    assert (process.returncode, kills) == (0, 4)
    assert json.loads(output)["images"] == 120
    undisturbed = convert(table, tmp_path / "reference", Settings.of(format="tfrecord", shard_mb=2), jobs=1)
    assert json.loads(output)["index_digest"] == index.digest(undisturbed.index)
    assert contents(tmp_path / "out") == contents(tmp_path / "reference")
