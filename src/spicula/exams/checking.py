"""Which results can no longer be read. Only who asks for it has them looked at: it reads every byte of them."""

import pyarrow as pa

from spicula.exams.artefacts import Artefacts, LostArtefactError
from spicula.exams.intake.threads import in_threads
from spicula.exams.manifests import files_of
from spicula.progress import progress

#: Outputs that a thread looks at, one after the other.
CHUNK = 4


def lost_outputs(artefacts: Artefacts, outputs: pa.Table) -> dict[str, set[str]]:
    """Return the steps of exams whose output manifest, or a file that it names, is missing or damaged.

    Args:
        artefacts: of the workspace.
        outputs: see `Ledger.outputs`.

    Returns:
        exam -> names of steps.

    Raises:
        SpiculaError: the store cannot be read.
    """
    exams, *columns = (column.to_pylist() for column in outputs.columns)
    digests = sorted({one for column in columns for one in column if one is not None})
    looks = in_threads(lambda digest: _is_whole(artefacts, digest), digests, CHUNK)
    shown = progress(looks, "checking artefacts", "outputs", len(digests))
    lost = {digest for digest, is_whole in zip(digests, shown, strict=True) if not is_whole}
    found: dict[str, set[str]] = {}
    for step, column in zip(outputs.column_names[1:], columns, strict=True):
        for exam, digest in zip(exams, column, strict=True):
            if digest in lost:
                found.setdefault(exam, set()).add(step)
    return found


def _is_whole(artefacts: Artefacts, digest: str) -> bool:
    try:
        for name in files_of(artefacts.get_json(digest)):
            artefacts.get(name)
    except LostArtefactError:
        return False
    return True
