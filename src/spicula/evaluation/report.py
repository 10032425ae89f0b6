"""The report of a study: one HTML file that needs nothing else, to be read offline, printed and passed on."""

import base64
import hashlib
from pathlib import Path

import jinja2
from markupsafe import Markup

import spicula
from spicula import files
from spicula.evaluation import sections, wording
from spicula.evaluation.report_input import ReportInput

_TEMPLATES = Path(__file__).parent / "templates"


def write_report(to: Path, data: ReportInput) -> None:
    """Write a study's report as one self-contained HTML file, atomically.

    Whatever text the data carry is escaped; the page loads nothing from anywhere and works without its script.

    Raises:
        SpiculaError: a run cannot be read, an image is not in the Store, or the file cannot be written.
    """
    files.write_text(to, render(data))


def render(data: ReportInput) -> str:
    """Return the report as HTML text."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        count=wording.count, plural=wording.plural, level=wording.level_name, duration=wording.duration
    )
    script = (_TEMPLATES / "report.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("report.html").render(
        data=data,
        notice=spicula.RESEARCH_NOTICE,
        version=spicula.__version__,
        css=Markup((_TEMPLATES / "report.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_digest=digest,
        outline=_outline(data),
        **sections.assemble(data),
    )


def _outline(data: ReportInput) -> list[tuple[str, str]]:
    """The sections, for the navigation: id and name."""
    split = [("image-split", "Split by image")] if data.image_split_metrics is not None else []
    return [
        ("summary", "In short"),
        ("data", "The data"),
        ("models", "The models"),
        ("comparison", "Comparison"),
        *split,
        ("curves", "Curves and calibration"),
        ("confusion", "Confusion matrices"),
        ("training", "Training"),
        ("subgroups", "Subgroups"),
        ("mistakes", "Confident mistakes"),
        ("gradcam", "Grad-CAM"),
        ("checks", "Checks of the data"),
        ("recipe", "Recipe and digests"),
        ("reading", "How to read the figures"),
    ]
