"""Writing a model repository: whole beside it, and only then moved into it, model by model."""

import errno
import re
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from spicula import bundle as bundles
from spicula import files
from spicula.bundle import Bundle, golden, sealed
from spicula.bundle import format as layout
from spicula.errors import SpiculaError, UsageError
from spicula.serving.triton import config
from spicula.serving.triton.config import GOLDEN, IMAGE, LABELS, PREPROCESS, Device

CONFIG = "config.pbtxt"
#: Where Triton looks for files that `model_warmup` names.
WARMUP = "warmup"

#: What Triton's Python backend runs. All of it is in the package, which has to be installed there.
MODEL_PY = '''\
"""Prepares images as `spicula predict` does. Made by: spicula bundle triton"""

try:
    from spicula.serving.triton.backend import TritonPythonModel
except ImportError as error:
    raise ImportError(f"the Python of Triton's Python backend needs spicula: pip install spicula ({error})") from error

__all__ = ["TritonPythonModel"]
'''

#: Names that are folders of a repository and parts of an address as they are.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_DIGEST = re.compile(rf'key:\s*"{config.DIGEST}"\s*value:?\s*\{{\s*string_value:\s*"([0-9a-f]{{64}})"')
#: What Python leaves behind where it has run.
_CACHE = "__pycache__"


@dataclass(frozen=True)
class Exported:
    """One bundle in a repository.

    Attributes:
        bundle: its folder.
        digest: of the bundle.
        models: names of its models: the network, what prepares images for it, and both.
    """

    bundle: Path
    digest: str
    models: tuple[str, str, str]


def export(
    folders: Sequence[Path], to: Path, *, device: Device = "cpu", instances: int = 1, decoders: int | None = None
) -> list[Exported]:
    """Write bundles into a model repository of Triton.

    Models of other bundles that are there stay as they are. The same bundle again is written anew, configuration
    included.

    Args:
        folders: bundles of studies.
        to: the repository; it is made when missing.
        device: what the networks run on.
        instances: of each network; on a GPU: on each.
        decoders: images that each model prepares at a time; None: as many as instances.

    Returns:
        What was written, in the order of `folders`.

    Raises:
        UsageError: a folder is no bundle of a study, two models have one name, or `to` holds another model of that
            name.
        SpiculaError: a bundle is damaged, or `to` cannot be written.
    """
    if to.exists() and not to.is_dir():
        raise UsageError(f"{to} is a file; a model repository is a folder, name another")
    to = to.resolve()
    temporary = to.with_name(f"{files.TEMPORARY}{to.name}-{secrets.token_hex(4)}")
    exported: list[Exported] = []
    try:
        temporary.mkdir(parents=True)
        for folder in folders:
            one = _write(_load(Path(folder)), temporary, device, instances, decoders or instances)
            exported.append(one)
        for one in exported:
            for name in one.models:
                _refuse_other(temporary / name, to / name, one)
        for one in exported:
            for name in one.models:  # the ensemble comes last: Triton may be watching
                _place(temporary / name, to / name, temporary / f"{name}.old")
    except OSError as error:
        if error.errno == errno.EXDEV:
            raise SpiculaError(f"cannot write {to}: it is a file system of its own; name a folder in it") from error
        raise SpiculaError(f"cannot write {to}: {error.strerror}; check the folder's rights and free space") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return exported


def _load(folder: Path) -> Bundle:
    if sealed.kind_of(folder) == sealed.SCREENING:
        raise UsageError(
            f"the bundle {folder} is a classifier of four-view exams, which Triton cannot answer alone: whole exams go "
            f"through stages. Serve it with: spicula serve {folder}"
        )
    bundle = bundles.load(folder, threads=1)
    if not _NAME.fullmatch(bundle.name):
        raise UsageError(
            f"the bundle {folder} has the name {bundle.name!r}, which cannot be a folder's of a repository: letters, "
            "digits, dot, underscore and hyphen can"
        )
    return bundle


def _write(bundle: Bundle, repository: Path, device: Device, instances: int, decoders: int) -> Exported:
    """Write the three models of a bundle into a repository that has no model of theirs."""
    name, info = bundle.name, bundle.info
    models = (name, name + PREPROCESS, name + IMAGE)
    for model in models:
        if (repository / model).exists():
            raise UsageError(
                f"{bundle.folder} and another bundle both make a model called {model}; export one of them, or train "
                "one under another name"
            )
    network, preprocess, ensemble = (repository / model for model in models)
    files.write_bytes(network / "1" / layout.MODEL, bundle.model)
    files.write_text(network / LABELS, "".join(f"{' '.join(word.split())}\n" for word in info["classes"]))
    files.write_bytes(network / WARMUP / GOLDEN, bundle.inputs(golden.images(bundle.preprocess)[:1]).tobytes())
    files.write_text(network / CONFIG, config.network(bundle, device, instances))
    # what the Python backend has to know of the bundle: its description, which verifies itself
    files.write_text(preprocess / "1" / sealed.INFO, sealed.render(info))
    files.write_text(preprocess / "1" / "model.py", MODEL_PY)
    files.write_text(preprocess / CONFIG, config.preprocess(bundle, decoders))
    (ensemble / "1").mkdir(parents=True)  # a version has a folder, also where there is nothing to put in it
    files.write_text(ensemble / CONFIG, config.ensemble(bundle))
    return Exported(bundle.folder, bundle.digest, models)


def _refuse_other(new: Path, old: Path, exported: Exported) -> None:
    """Check that what is at `old` may be replaced: nothing, or the same model of the same bundle.

    Raises:
        UsageError: there is something else.
    """
    if not old.is_dir():
        if old.exists() or old.is_symlink():
            raise UsageError(f"{old} is no folder; remove it, or name another repository")
        return
    found = {path.relative_to(old) for path in old.rglob("*") if not path.is_dir() and _CACHE not in path.parts}
    if not found:
        return
    try:
        told = _DIGEST.search((old / CONFIG).read_text(encoding="utf-8"))
    except (FileNotFoundError, UnicodeDecodeError):
        told = None
    if told is None:
        raise UsageError(f"{old} holds a model that is not of this command; remove it, or name another repository")
    if told[1] != exported.digest:
        raise UsageError(
            f"{old} is of another bundle (digest {told[1][:12]}) than {exported.bundle} ({exported.digest[:12]}); "
            "remove it, or name another repository"
        )
    strange = sorted(found - {path.relative_to(new) for path in new.rglob("*")})
    if strange:
        raise UsageError(f"{old / strange[0]} is not of this command; remove it, or name another repository")


def _place(new: Path, at: Path, aside: Path) -> None:
    if at.exists():
        at.rename(aside)
    files.place_folder(new, at)
