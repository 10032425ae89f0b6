import numpy as np
import pyarrow as pa
import pytest

from spicula import index
from spicula.errors import SpiculaError
from spicula.imaging.preprocess import Preprocess
from spicula.imaging.store import build_store
from spicula.training.data import part


def test_a_part_is_one_side_in_order_of_ids_whatever_the_order_of_the_index(study):
    shuffled = study.table.take(pa.array(np.random.default_rng(0).permutation(len(study.table))))
    first, second = part(study.table, study.store, "train"), part(shuffled, study.store, "train")
    assert first.image_ids == second.image_ids == sorted(first.image_ids)
    assert len(first) == 72
    assert first.targets.tolist() == second.targets.tolist()
    assert set(study.table["split"].to_pylist()) == {"train", "val", "test"}
    patients = {split: set(part(study.table, study.store, split).patients) for split in ("train", "val", "test")}
    assert [len(found) for found in patients.values()] == [12, 4, 4]
    assert not patients["train"] & patients["test"]


def test_a_part_knows_its_rows_and_files(study):
    side = part(study.table, study.store, "val")
    found = study.store.table.take(pa.array(side.rows))
    assert found["image_id"].to_pylist() == side.image_ids
    assert found["sha256"].to_pylist() == side.digests
    assert side.table["image_id"].to_pylist() == side.image_ids


def test_images_without_target_are_left_out_and_unknown_patients_stand_alone(study):
    rows = study.table.to_pylist()
    for row in rows:
        if row["image_id"].endswith("-0"):
            row["target"] = None
        if row["image_id"].endswith(("-1", "-2")):
            row["patient_id"] = None
    side = part(index.from_rows(rows, index.root_of(study.table)), study.store, "train")
    assert len(side) == 60
    assert len(set(side.patients)) == 24 + 12


def test_rejected_images_are_left_out_and_images_of_another_store_are_an_error(study, tmp_path):
    rows = study.table.to_pylist()
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    for row in rows:
        row["path"] = str((index.root_of(study.table) / row["path"]).relative_to("/"))
    spoilt = index.from_rows([{**rows[0], "path": str((tmp_path / "broken.png").relative_to("/"))}, *rows[1:9]], "/")
    store = build_store(spoilt, Preprocess(size=(16, 16)), tmp_path / "store", jobs=1)
    assert len(store.rejected) == 1
    side = part(spoilt, store, "train")
    assert len(side) == 8
    assert rows[0]["image_id"] not in side.image_ids
    with pytest.raises(SpiculaError, match=r"p\d\d-\d is not in the Store"):
        part(index.from_rows(rows, "/"), store, "train")
