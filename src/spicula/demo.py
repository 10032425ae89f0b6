"""The demonstration: synthetic exams, a study of three lines, a report, a bundle, and a new exam classified."""

import time
from pathlib import Path

from spicula import bundle, predict, recipe, study
from spicula.phantoms import make_exams
from spicula.progress import say
from spicula.study import summary

#: Another seed than the study's exams, so that the new exam is of a woman no model has seen.
_NEW_SEED = 1


def run(out: Path, exams: int) -> int:
    """Run the demonstration, print its results and where to look, and return the exit status.

    Args:
        out: folder for everything.
        exams: number of synthetic exams, four views each.
    """
    start = time.monotonic()
    say(f"making {exams} synthetic exams in {out / 'exams'}")
    data = make_exams(out / "exams", exams)
    new_exam = make_exams(out / "new-exam", 1, seed=_NEW_SEED)
    outcome = study.run(recipe.load("demo"), data, out / "study")
    print(summary.text(outcome))
    assert outcome.bundle is not None
    loaded = bundle.load(outcome.bundle)
    answered, rejected = predict.predict(loaded, sorted(new_exam.rglob("*.dcm")))
    print(f"\nA new synthetic exam, classified by the bundle:\n{predict.as_table_text(answered, rejected, loaded)}")
    print(f"\nDone in {time.monotonic() - start:.0f} s. Open {outcome.report} in a browser; classify images with:")
    print(f"  spicula predict {outcome.bundle} IMAGE_OR_FOLDER")
    return 1 if len(rejected) else 0
