"""The card of a screening bundle: what is known of an imported model, and what is not.

The sections follow Mitchell et al. 2019, "Model Cards for Model Reporting", FAT* '19.
"""

from collections.abc import Iterable, Sequence

from spicula import RESEARCH_NOTICE
from spicula.bundle.screening import format as layout
from spicula.bundle.screening.format import Info, Network

PAPER = (
    "Wu N, Phang J, Park J, et al. (2020). Deep Neural Networks Improve Radiologists' Performance in Breast Cancer "
    "Screening. IEEE Transactions on Medical Imaging 39(4), 1184-1194."
)

_WHAT = {
    layout.PATCH: "classifies square patches of a mammogram; its answers, laid over the image, are the heatmaps",
    layout.IMAGE_ONLY: "scores both breasts from the four views",
    layout.IMAGE_AND_HEATMAPS: "scores both breasts from the four views and their heatmaps",
}
_ARCHITECTURES = {
    "densenet121": "DenseNet-121 with TensorFlow padding, four classes",
    "view-wise-resnet22": "view-wise ResNet-22, one tower an angle, shared by both sides",
    "graph": "a graph; its architecture is not known",
}


def render(info: Info) -> str:
    """Return the card as Markdown.

    Args:
        info: the content of `bundle.json`; `files` must list all but the card itself, `digest` is not used.
    """
    sections = (
        _head(info),
        _use(),
        _networks(info),
        _data(info),
        _performance(),
        _limitations(info),
        _provenance(info),
    )
    return "\n\n".join(sections) + "\n"


def _head(info: Info) -> str:
    return "\n".join(
        [
            f"# {info['name']}: a classifier of four-view screening exams",
            "",
            f"> **{RESEARCH_NOTICE}** No decision about anyone's care may rest on what this model says.",
            "",
            _table(
                ("", ""),
                [
                    ("Model", f"{info['name']}, version {info['version']}"),
                    ("Answers", "for each breast, the probability of a benign and of a malignant finding"),
                    ("Made", f"{info['created']} with spicula {info['spicula']}"),
                    ("Licence of the weights", info["licence"]),
                ],
            ),
        ]
    )


def _use() -> str:
    return "\n".join(
        [
            "## Intended use",
            "",
            "Screening mammograms of both breasts, views CC and MLO of each. For research: to reproduce the published "
            "study, to compare methods, to test software.",
            "",
            "Not for: diagnosis, screening, triage, or any decision about a person; images of another kind, or of "
            "another population than the training data, unless you have evaluated it there.",
        ]
    )


def _networks(info: Info) -> str:
    rows = [
        (role, _WHAT.get(role, ""), _ARCHITECTURES[network["architecture"]])
        for role, network in info["networks"].items()
    ]
    settings = [(key, f"`{value}`") for key, value in info["settings"].items()]
    threshold = info["heatmap_threshold"]
    return "\n".join(
        [
            "## Networks",
            "",
            _table(("network", "what it does", "architecture"), rows),
            "",
            "The numbers that images are cropped, cut into patches and put into windows with, in pixels:",
            "",
            _table(("setting", "value"), settings),
            "",
            "Heatmap segmentations have no threshold: none was given."
            if threshold is None
            else f"A heatmap's segmentation holds the pixels with a probability of at least {threshold:g}. The "
            "threshold was given by whoever imported the model; it was not chosen or checked here.",
        ]
    )


def _data(info: Info) -> str:
    published = any(network["source"] for network in info["networks"].values())
    lines = ["## Training data", "", "Not known from the weights: a weight file does not say what it was trained on."]
    if published:
        lines += [
            "",
            "The files have the names and shapes of the model of this paper, which was trained on exams of one "
            "hospital network; that the numbers in them are those of the paper cannot be told from the files:",
            "",
            PAPER,
        ]
    return "\n".join(lines)


def _performance() -> str:
    return "\n".join(
        [
            "## Performance",
            "",
            "**Not validated here.** No figure of the paper was checked with these weights, and none holds for images "
            "of another hospital, device or conversion unless it was measured there.",
        ]
    )


def _limitations(info: Info) -> str:
    points = [
        "The published classifier works on windows of fixed size around the breast; what lies outside is not seen.",
        "Scores are not calibrated for your population; read them as an order, not as a risk.",
        "A heatmap says where the patch classifier reacted, not why the exam's score is what it is.",
    ]
    if layout.PATCH not in info["networks"]:
        points.append("There is no patch classifier in this bundle, and so there are no heatmaps.")
    return "\n".join(["## Limitations", "", *(f"- {point}" for point in points)])


def _provenance(info: Info) -> str:
    sources = [
        (f"published file of {role}", network["source"]["sha256"])
        for role, network in info["networks"].items()
        if network["source"]
    ]
    rows = [*sources, *((name, record["sha256"]) for name, record in info["files"].items())]
    return "\n".join(
        [
            "## Provenance",
            "",
            _table(("SHA-256 of", ""), [(name, f"`{digest}`") for name, digest in rows]),
            "",
            *(_parity(role, network) for role, network in info["networks"].items()),
        ]
    )


def _parity(role: str, network: Network) -> str:
    parity = network["parity"]
    if parity is None:
        return f"- {role}: no other form of it was there to compare its graph with."
    return (
        f"- {role}: on {parity['inputs']} generated inputs, its graphs (onnxruntime {parity['onnxruntime']}) differ "
        f"from the published form ({parity['reference']}) by at most {parity['max_abs_difference']:.1e} in probability "
        f"(tolerance {parity['tolerance']:.0e}), and decide every one alike: {'; '.join(parity['sizes'])}."
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
