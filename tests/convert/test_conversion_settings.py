import pytest

from spicula.convert.settings import Settings
from spicula.errors import UsageError


def test_the_format_follows_the_preset():
    assert Settings.of(preset="vindr").format == "png8"
    assert Settings.of().format == "png16"
    assert Settings.of(preset="vindr", format="webdataset").format == "webdataset"


@pytest.mark.parametrize(
    ("values", "way_out"),
    [
        ({"preset": "display", "clahe": True}, "--preset vindr"),
        ({"crop": True}, "--preset vindr"),
        ({"preset": "display", "scale_to_16": True}, "--preset raw"),
        ({"format": "png8", "scale_to_16": True}, "--format png16"),
        ({"window": 1}, "--preset display"),
        ({"preset": "vindr", "format": "png16"}, "--format png8"),
        ({"preset": "whole-image", "format": "png8"}, "--format png16"),
        ({"format": "dicom"}, "copy them"),
        ({"format": "dicom", "deidentify": True, "preset": "display"}, "byte for byte"),
        ({"format": "gif"}, "png16"),
        ({"shard_mb": 0}, "shard_mb"),
    ],
)
def test_what_does_not_go_together_is_refused_with_the_way_out(values, way_out):
    with pytest.raises(UsageError) as caught:
        Settings.of(**values)
    assert way_out in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_digest_is_of_what_images_depend_on():
    digests = [
        Settings.of(**values).digest()
        for values in (
            {},
            {"scale_to_16": True},
            {"preset": "display"},
            {"preset": "display", "window": 1},
            {"preset": "display", "format": "png8"},
            {"preset": "vindr"},
            {"preset": "vindr", "clahe": True},
            {"preset": "vindr", "crop": True},
            {"preset": "whole-image"},
        )
    ]
    assert len(set(digests)) == len(digests)
    assert Settings.of(shard_mb=1).digest() == Settings.of(shard_mb=2).digest()
