"""The real exam with seeded weights: what the published implementation gives, within the tolerances it asks for."""

import importlib.util
import json

import numpy as np
import pytest
from published_windows import published_windows

from spicula.bundle.screening import ScreeningSettings
from spicula.errors import UsageError
from spicula.exams.stages.centers import centers
from spicula.exams.stages.classify import classify
from spicula.exams.stages.crop import crop
from spicula.exams.stages.heatmaps import heatmaps, maps
from spicula.exams.stages.orientation import oriented
from spicula.exams.types import VIEWS, Image
from spicula.imaging.readers import read_pixels

torch = pytest.importorskip("torch", reason="the seeded weights are drawn with torch: pip install 'spicula[train]'")
pytest.importorskip("openvino", reason="needs openvino: pip install 'spicula[exams]'")

SETTINGS = ScreeningSettings()
HEATMAP_TOLERANCE = 2e-4
SCORE_TOLERANCE = {"fp32": 5e-4, "bf16": 5e-3}
SIDES = {"L": "left", "R": "right"}


@pytest.fixture(scope="session")
def reference(test_data):
    folder = test_data.parent / "reference"
    if not (folder / "exam-golden.json").exists():
        pytest.skip(
            "needs the golden values of the published implementation, in the folder reference beside the images"
        )
    return folder


@pytest.fixture(scope="session")
def golden(reference):
    return json.loads((reference / "exam-golden.json").read_text())


@pytest.fixture(scope="session")
def images(test_data, golden):
    folder = test_data / "nyu-exam"
    return [
        Image(name, one["view"], read_pixels(folder / f"{name}.png").array, False)
        for name, one in golden["images"].items()
    ]


@pytest.fixture(scope="session")
def bundle(reference, tmp_path_factory):
    """The published architecture with weights from the recipe; without the long comparison that an import ends with."""
    from safetensors.torch import save

    from spicula.bundle.screening import graphs, writing
    from spicula.models.screening import patches
    from spicula.models.screening.view_wise import ViewWise

    spec = importlib.util.spec_from_file_location("seeded_weights", reference / "seeded_weights.py")
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    networks = {"patch": patches.build(), "image-only": ViewWise(1), "image-and-heatmaps": ViewWise(3)}
    converted, weights = {}, {}
    for role, one in networks.items():
        one.load_state_dict(recipe.seeded_state_dict(one))
        converted |= graphs.convert(role, one.eval(), SETTINGS)
        weights[role] = save(one.state_dict())
    return writing.write(
        tmp_path_factory.mktemp("seeded") / "bundle",
        name="seeded",
        settings=SETTINGS,
        graphs=converted,
        weights=weights,
    )


@pytest.fixture(scope="session")
def network(bundle):
    """Makes runners, each once."""
    from spicula.exams.networks import runner_of

    made = {}

    def get(graph, precision="fp32"):
        if (graph, precision) not in made:
            try:
                made[graph, precision] = runner_of(bundle, graph, precision=precision)
            except UsageError as error:
                if precision == "bf16":
                    pytest.skip(str(error))
                raise
        return made[graph, precision]

    return get


@pytest.fixture(scope="session")
def crops(images):
    return crop(images, SETTINGS)


@pytest.fixture(scope="session")
def points(crops):
    return centers(crops, SETTINGS)


@pytest.fixture(scope="session")
def exam(crops, points):
    return crops, points


@pytest.fixture(scope="session")
def heat(crops, network):
    """Scores of patches, by precision."""
    made = {}

    def get(precision):
        if precision not in made:
            made[precision] = heatmaps(crops, network("patch", precision), SETTINGS)
        return made[precision]

    return get


def geometry(cropped, center):
    return {**vars(cropped.crop), "best_center": center}


def as_tuples(value):
    return tuple(map(as_tuples, value)) if isinstance(value, list) else value


def check_scores(found, expected, tolerance):
    assert {f"{SIDES[one.side]}_{one.target}" for one in found} == set(expected)
    for one in found:
        assert one.score == pytest.approx(expected[f"{SIDES[one.side]}_{one.target}"], rel=0, abs=tolerance)


def angles(network, model, precision="fp32"):
    return {angle: network(f"{model}.{angle}", precision) for angle in ("cc", "mlo")}


def check_heatmaps(found, expected):
    """Compare a heatmap with its golden shape, statistics and means over 8 x 8 blocks."""
    assert list(found.shape) == expected["shape"]
    for statistic in ("mean", "std", "max"):
        value = getattr(found.astype(np.float64), statistic)()
        assert value == pytest.approx(expected[statistic], rel=0, abs=HEATMAP_TOLERANCE)
    rows, columns = ([length * part // 8 for part in range(9)] for length in found.shape)
    blocks = [
        [found[rows[y] : rows[y + 1], columns[x] : columns[x + 1]].mean(dtype=np.float64) for x in range(8)]
        for y in range(8)
    ]
    np.testing.assert_allclose(blocks, expected["blocks8x8"], rtol=0, atol=HEATMAP_TOLERANCE)


@pytest.mark.slow
def test_geometry(crops, points, golden):
    for cropped, center in zip(crops, points, strict=True):
        expected = golden["images"][cropped.name]
        found = geometry(cropped, center)
        assert found == {key: as_tuples(expected[key]) for key in found}


@pytest.mark.slow
def test_heatmaps(crops, heat, golden):
    for cropped, scores in zip(crops, heat("fp32"), strict=True):
        malignant, benign = maps(scores)
        check_heatmaps(malignant, golden["images"][cropped.name]["heatmap_malignant"])
        check_heatmaps(benign, golden["images"][cropped.name]["heatmap_benign"])


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_predictions_of_the_image_only_model(precision, exam, network, golden):
    found = classify(*exam, None, angles(network, "image-only", precision), SETTINGS)
    check_scores(found, golden["image"], SCORE_TOLERANCE[precision])


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_predictions_of_the_model_with_heatmaps(precision, exam, heat, network, golden):
    networks = angles(network, "image-and-heatmaps", precision)
    found = classify(*exam, heat(precision), networks, SETTINGS)
    check_scores(found, golden["imageheatmaps"], SCORE_TOLERANCE[precision])


@pytest.mark.slow
def test_mirrored_images_have_mirrored_geometry_and_the_same_scores(images, exam, network, heat, golden):
    turned = crop([Image(one.name, one.view, one.pixels[:, ::-1], True) for one in images], SETTINGS)
    turned_points = centers(turned, SETTINGS)
    for image, before, after, was, now in zip(images, exam[0], turned, exam[1], turned_points, strict=True):
        width = image.pixels.shape[1]
        # In images that point to the left the published procedure counts distances from 1, elsewhere from 0.
        more = 1 if image.view.startswith("L") else -1
        top, bottom, left, right = before.crop.window_location
        assert after.crop.window_location == (top, bottom, width - right, width - left)
        rows, tip = before.crop.rightmost_points
        assert after.crop.rightmost_points == (rows, tip + more)
        row, columns = before.crop.bottommost_points
        assert after.crop.bottommost_points == (row, tuple(column + more for column in columns))
        assert after.crop.distance_from_starting_side == before.crop.distance_from_starting_side
        assert now == (was[0], was[1] + more)
        np.testing.assert_array_equal(after.pixels, before.pixels[:, ::-1])
    check_scores(
        classify(turned, turned_points, None, angles(network, "image-only"), SETTINGS),
        golden["image"],
        SCORE_TOLERANCE["fp32"],
    )
    (mirrored,) = heatmaps(turned[:1], network("patch"), SETTINGS)
    np.testing.assert_array_equal(maps(mirrored), maps(heat("fp32")[0])[:, :, ::-1])


@pytest.mark.slow
def test_of_two_images_in_a_view_the_published_choice_is_shown(images, network):
    second = Image("second", "R-CC", np.ascontiguousarray(images[1].pixels[::-1]), False)
    crops = crop([*images[:2], second, *images[2:]], SETTINGS)
    points = centers(crops, SETTINGS)
    networks = angles(network, "image-only")
    found = classify(crops, points, None, networks, SETTINGS)

    views = {view: [number for number, one in enumerate(crops) if one.view == view] for view in VIEWS}
    assert [len(views[view]) for view in VIEWS] == [1, 2, 1, 1]
    shown = {
        view: [[oriented(crops[number].pixels, view, False)] for number in numbers] for view, numbers in views.items()
    }
    exams = list(published_windows(shown, {view: [points[n] for n in numbers] for view, numbers in views.items()}))
    answers = []
    for angle, runner in networks.items():
        pairs = ((exam[f"L-{angle.upper()}"][None], exam[f"R-{angle.upper()}"][None]) for exam in exams)
        answers.append(np.concatenate(list(runner(pairs))))
    expected = np.mean(answers, axis=(0, 1))
    assert [one.score for one in found] == pytest.approx(expected.tolist(), rel=0, abs=1e-5)
    # and it is a choice: neither image alone gives these scores
    for left_out in views["R-CC"]:
        kept = [number for number in range(len(crops)) if number != left_out]
        alone = classify([crops[n] for n in kept], [points[n] for n in kept], None, networks, SETTINGS)
        assert max(abs(one.score - other.score) for one, other in zip(alone, found, strict=True)) > 1e-4
