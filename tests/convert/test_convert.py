"""What a conversion makes, through its public function."""

import json

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from small_archive import grey, pixels_of, save_dicom, save_png

from spicula import files, index
from spicula.convert import Settings, convert
from spicula.errors import UsageError
from spicula.imaging.display import read_display
from spicula.imaging.geometry import Geometry
from spicula.imaging.readers import read_pixels


@pytest.fixture
def archive(tmp_path, indexed):
    """One image of each kind that matters, and its Index."""
    root = tmp_path / "archive"
    save_dicom(root / "p1/left.dcm", grey(), WindowCenter="2000", WindowWidth="1000")
    save_dicom(root / "p1/inverted", grey(seed=1), PhotometricInterpretation="MONOCHROME1")
    save_dicom(root / "p2/two.dcm", np.stack([grey(seed=2), grey(seed=3)]))
    save_png(root / "p2/film.pgm", grey(top=255, seed=4))
    save_png(root / "p3/slide.png", np.random.default_rng(5).integers(0, 256, (24, 20, 3)).astype(np.uint8))
    rows = [{"path": path, "bits": 12, "photometric": "MONOCHROME2"} for path in ("p1/left.dcm", "p1/inverted")]
    rows += [{"path": "p2/two.dcm", "frame": frame, "bits": 12} for frame in (0, 1)]
    rows += [{"path": path, "bits": 8} for path in ("p2/film.pgm", "p3/slide.png")]
    extra = {"patient_id": "one", "target": 1, "label": "malignant", "laterality": "L", "pixel_spacing_mm": 0.07}
    return indexed(root, [{**row, **extra, "split": "train"} for row in rows])


def test_raw_keeps_every_bit_and_the_structure(archive, tmp_path):
    outcome = convert(archive, tmp_path / "out", Settings.of())
    source = index.read(archive)
    made = index.read(tmp_path / "out" / "index.parquet")
    assert made.equals(outcome.index)
    assert made["path"].to_pylist() == [
        "p1/left.png",
        "p1/inverted.png",
        "p2/two-f000.png",
        "p2/two-f001.png",
        "p2/film.png",
        "p3/slide.png",
    ]
    found = pixels_of(made)
    for image_id, path, frame in zip(
        *(source[name].to_pylist() for name in ("image_id", "path", "frame")), strict=True
    ):
        expected = read_pixels(index.root_of(source) / path, frame).array
        read = found[image_id][..., ::-1] if expected.ndim == 3 else found[image_id]
        np.testing.assert_array_equal(read, expected)
        assert read.dtype == expected.dtype
    assert made["bits"].to_pylist() == [12, 12, 12, 12, 8, 8]
    assert made["photometric"].to_pylist() == ["MONOCHROME2"] * 5 + ["RGB"]
    assert set(made["frame"].to_pylist()) == {0}
    assert made["sha256"].to_pylist() == [files.sha256_file(path) for path in index.image_paths(made)]
    assert made["width"].to_pylist() == [20] * 6
    assert made["height"].to_pylist() == [24] * 6
    for column in ("image_id", "patient_id", "target", "label", "laterality", "split", "pixel_spacing_mm", "source"):
        assert made[column].equals(source[column])


def test_tables_say_where_everything_comes_from(archive, tmp_path):
    settings = Settings.of()
    convert(archive, tmp_path / "out", settings)
    source = index.read(archive)
    table = pq.read_table(tmp_path / "out" / "conversion.parquet")
    assert table["source"].equals(source["path"])
    assert table["source_frame"].equals(source["frame"])
    assert table["source_sha256"].equals(source["sha256"])
    assert set(table["settings"].to_pylist()) == {settings.digest()}
    assert Geometry.from_row(table.slice(0, 1).to_pylist()[0]).scaled_size == (24, 20)
    assert pq.read_table(tmp_path / "out" / "rejected.parquet").schema.equals(index.REJECTED)
    card = json.loads((tmp_path / "out" / "conversion.json").read_text())
    assert card["digest"] == settings.digest()
    assert card["settings"] == settings.model_dump(mode="json")
    assert card["counts"] == {"images": 6, "rejected": 0}
    assert "as they are" in card["values"]


def test_scale_to_16_can_be_undone(archive, tmp_path):
    made = convert(archive, tmp_path / "out", Settings.of(scale_to_16=True)).index
    assert set(made["bits"].to_pylist()) == {16}
    stretched = pixels_of(made)["p1/left.dcm#0"]
    assert stretched.dtype == np.uint16
    assert (stretched.min(), stretched.max()) == (0, 65535)
    np.testing.assert_array_equal(np.rint(stretched / 65535 * 4095).astype(np.uint16), grey())
    assert pixels_of(made)["p2/film.pgm#0"].max() == 65535


@pytest.mark.parametrize(("format", "bits"), [("png16", 16), ("png8", 8)])
def test_display_is_what_a_workstation_shows(archive, tmp_path, format, bits):
    made = convert(archive, tmp_path / "out", Settings.of(preset="display", format=format)).index
    assert set(made["bits"].to_pylist()) == {bits}
    expected = read_display(index.root_of(index.read(archive)) / "p1/left.dcm", bits=bits).array
    np.testing.assert_array_equal(pixels_of(made)["p1/left.dcm#0"], expected)
    assert not np.array_equal(expected, grey())


@pytest.mark.parametrize(
    "settings", [Settings.of(preset="vindr", clahe=True, crop=True), Settings.of(preset="whole-image")], ids=str
)
def test_presets_are_the_one_preprocessing(archive, tmp_path, settings):
    made = convert(archive, tmp_path / "out", settings).index
    source = index.root_of(index.read(archive)) / "p1/left.dcm"
    expected = settings.preprocess.apply(read_pixels(source))
    np.testing.assert_array_equal(pixels_of(made)["p1/left.dcm#0"], expected.array[..., 0])
    assert set(made["photometric"].to_pylist()) == {"MONOCHROME2"}
    assert set(made["bits"].to_pylist()) == {settings.preprocess.bits}
    scale = expected.geometry.scale[1]
    assert made["pixel_spacing_mm"][0].as_py() == pytest.approx(0.07 / scale)


def test_presets_have_the_published_sizes():
    vindr, whole = Settings.of(preset="vindr", clahe=True).preprocess, Settings.of(preset="whole-image").preprocess
    assert (vindr.size, vindr.bits, vindr.percentiles, vindr.clahe) == ((256, 256), 8, (0, 100), 2.0)
    assert (whole.size, whole.bits, whole.keep_aspect) == ((1152, 896), 16, False)


def test_png8_does_not_lose_bits_silently(archive, tmp_path, indexed):
    with pytest.raises(UsageError, match=r"12 bits; use --format png16, or --preset display"):
        convert(archive, tmp_path / "out", Settings.of(format="png8"))
    assert not (tmp_path / "out").exists()
    unknown = indexed(tmp_path / "archive", [{"path": "p1/left.dcm"}, {"path": "p2/film.pgm"}], "unknown.parquet")
    outcome = convert(unknown, tmp_path / "out", Settings.of(format="png8"))
    assert outcome.index["path"].to_pylist() == ["p2/film.png"]
    (rejected,) = outcome.rejected.to_pylist()
    assert rejected["path"] == "p1/left.dcm"
    assert "12 bits" in rejected["reason"]


def lesion(kind, coordinates=(), **more):
    return {"kind": kind, "coordinates": list(coordinates), "pathology": "malignant", **more}


@pytest.fixture
def with_lesions(tmp_path, indexed):
    root = tmp_path / "archive"
    save_png(root / "images/a.png", grey(40, 30))
    mask = np.zeros((40, 30), np.uint8)
    mask[10:20, 6:12] = 1
    save_png(root / "masks/m.png", mask)
    save_png(root / "masks/small.png", mask[:20])
    (root / "masks/broken.png").write_bytes(b"not a picture")
    lesions = [
        lesion("box", [6, 10, 12, 20]),
        lesion("circle", [15, 20, 5]),
        lesion("polygon", [1, 1, 9, 1, 9, 9]),
        lesion("mask", mask_path="masks/m.png"),
        lesion("box", [6, 10, 12, 20], mask_path="masks/m.png"),
        lesion("mask", mask_path="masks/small.png"),
        lesion("box", [0, 0, 4, 4], mask_path="masks/broken.png"),
        lesion("mask", mask_path="masks/lost.png"),
        lesion("box", [-5, -5, 4, 4]),
    ]
    return indexed(root, [{"path": "images/a.png", "lesions": lesions}])


def test_raw_leaves_lesions_where_they_are_and_takes_masks_along(with_lesions, tmp_path):
    outcome = convert(with_lesions, tmp_path / "out", Settings.of())
    before = index.read(with_lesions)["lesions"][0].as_py()
    after = outcome.index["lesions"][0].as_py()
    assert [one["coordinates"] for one in after] == [one["coordinates"] for one in before]
    assert [one["pathology"] for one in after] == ["malignant"] * 9
    kinds = [one["kind"] for one in after]
    assert kinds == ["box", "circle", "polygon", "mask", "box", "unlocated", "box", "unlocated", "box"]
    paths = [one["mask_path"] for one in after]
    assert paths == [None] * 3 + ["masks/m.png"] * 2 + [None] * 4
    mask = cv2.imread(str(tmp_path / "out/masks/m.png"), -1)
    assert mask.shape == (40, 30)
    assert mask.dtype == np.uint8
    assert set(np.unique(mask)) == {0, 255}
    assert np.argwhere(mask).min(axis=0).tolist() == [10, 6]
    assert np.argwhere(mask).max(axis=0).tolist() == [19, 11]
    reasons = {row["path"]: row["reason"] for row in outcome.rejected.to_pylist()}
    assert sorted(reasons) == ["masks/broken.png", "masks/lost.png", "masks/small.png"]
    assert "30 x 20" in reasons["masks/small.png"]
    assert all("mask of images/a.png" in reason for reason in reasons.values())
    assert convert(with_lesions, tmp_path / "out", Settings.of()).rejected.equals(outcome.rejected)


def test_presets_move_lesions_and_masks(with_lesions, tmp_path):
    outcome = convert(with_lesions, tmp_path / "out", Settings.of(preset="whole-image"))
    after = outcome.index["lesions"][0].as_py()
    scale_x, scale_y = 896 / 30, 1152 / 40
    assert after[0]["coordinates"] == pytest.approx([6 * scale_x, 10 * scale_y, 12 * scale_x, 20 * scale_y])
    assert after[1]["kind"] == "polygon"  # both sides are scaled differently
    mask = cv2.imread(str(tmp_path / "out/masks/m.png"), -1)
    assert mask.shape == (1152, 896)
    rows, columns = np.nonzero(mask)
    box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert box == pytest.approx(after[0]["coordinates"], abs=1)


def test_images_that_share_a_mask_file_get_masks_of_their_own(tmp_path, indexed):
    root = tmp_path / "archive"
    for name, rows in (("a.png", 40), ("b.png", 20)):
        save_png(root / name, grey(rows, 30))
    save_png(root / "m.png", np.eye(40, 30, dtype=np.uint8))
    rows = [{"path": name, "lesions": [lesion("mask", mask_path="m.png")]} for name in ("a.png", "b.png")]
    outcome = convert(indexed(root, rows), tmp_path / "out", Settings.of())
    (first,), (second,) = outcome.index["lesions"].to_pylist()
    assert first["kind"] == "mask"
    assert (tmp_path / "out" / first["mask_path"]).is_file()
    assert second["kind"] == "unlocated"


def test_rows_of_one_image_share_its_file(tmp_path, indexed):
    root = tmp_path / "archive"
    save_png(root / "a.png", grey())
    path = indexed(root, [{"path": "a.png", "image_id": "one"}, {"path": "a.png", "image_id": "two"}])
    outcome = convert(path, tmp_path / "out", Settings.of())
    assert outcome.index["path"].to_pylist() == ["a.png", "a.png"]
    assert outcome.as_json()["converted_now"] == 1


def test_an_index_without_digests_gets_them(twenty, tmp_path, indexed):
    table = index.read(twenty)
    rows = [{"path": path, "sha256": None} for path in table["path"].to_pylist()]
    convert(indexed(tmp_path / "images", rows, "without.parquet"), tmp_path / "out", Settings.of())
    found = pq.read_table(tmp_path / "out" / "conversion.parquet")["source_sha256"]
    assert found.to_pylist() == table["sha256"].to_pylist()


def test_images_can_have_moved(twenty, tmp_path):
    (tmp_path / "images").rename(tmp_path / "elsewhere")
    assert len(convert(twenty, tmp_path / "out", Settings.of()).rejected) == 20
    assert len(convert(twenty, tmp_path / "out", Settings.of(), root=tmp_path / "elsewhere").index) == 20


def test_bad_files_are_rejected_and_the_rest_is_converted(twenty, tmp_path):
    root = tmp_path / "images"
    (root / "a/i00.png").unlink()
    (root / "a/i02.png").write_bytes(b"no longer a picture")
    table = index.read(twenty)
    (root / "b/i01.png").write_bytes((root / "b/i01.png").read_bytes()[:-40])
    digests = table["sha256"].to_pylist()
    digests[table["path"].to_pylist().index("b/i01.png")] = files.sha256_file(root / "b/i01.png")
    position = table.schema.get_field_index("sha256")
    index.write(twenty, table.set_column(position, index.SCHEMA.field("sha256"), [digests]))
    outcome = convert(twenty, tmp_path / "out", Settings.of())
    reasons = {row["path"]: row["reason"] for row in outcome.rejected.to_pylist()}
    assert sorted(reasons) == ["a/i00.png", "a/i02.png", "b/i01.png"]
    assert "No such file" in reasons["a/i00.png"]
    assert "changed after it was indexed" in reasons["a/i02.png"]
    assert "cut short" in reasons["b/i01.png"]
    assert len(outcome.index) == 17
    assert pq.read_table(tmp_path / "out" / "rejected.parquet").equals(outcome.rejected)
    assert "3 rejected" in outcome.as_text()


def test_an_empty_index_makes_an_empty_one(tmp_path, indexed):
    outcome = convert(indexed(tmp_path, []), tmp_path / "out", Settings.of())
    assert len(outcome.index) == 0
    assert len(index.read(tmp_path / "out" / "index.parquet")) == 0


def test_real_files(test_data, tmp_path, indexed):
    root = test_data / "dicom"
    path = indexed(root, [{"path": one.name} for one in sorted(root.iterdir())])
    for number, settings in enumerate((Settings.of(), Settings.of(preset="display"))):
        outcome = convert(path, tmp_path / str(number), settings)
        assert "MG1_J2KI.png" in outcome.index["path"].to_pylist()
        rejected = set(outcome.rejected["path"].to_pylist())
        assert {"JPEGLossless_1s_1f_i_16_16_bad.dcm", "emri_small_jpeg_2k_lossless_too_short.dcm"} <= rejected
        assert len(outcome.index) + len(outcome.rejected) == len(index.read(path))
