"""The steps of an exam: the stages with the models that a workspace is run with, and the keys of their results."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from spicula import files

#: What a step reads besides outputs of other steps.
IMAGES = "images"


@dataclass(frozen=True)
class Step:
    """A stage, with the models and the settings that it is run with.

    Attributes:
        name: "crop", or, where a stage is run with several models, "classify:image-only".
        stage: its name in `stages.STAGES`.
        version: of the stage.
        pool: the kind of worker that runs it, "cpu" or "model".
        inputs: IMAGES, or names of steps before it, in the stage's order.
        parameters: JSON values that change what it computes.
        models: role -> digest of every network that it uses.
        model: name of the model whose scores it gives, where it gives scores.
        bundle: digest of the bundle which that model belongs to.
        about: what people are told of the models, as JSON values: "name" and "version" of the bundle,
            "heatmap_threshold", "operating_points" (target -> name -> threshold). It changes no result, and no key.
    """

    name: str
    stage: str
    version: int
    pool: str
    inputs: tuple[str, ...]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    models: Mapping[str, str] = field(default_factory=dict)
    model: str | None = None
    bundle: str | None = None
    about: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return the fields as JSON values; `Step.from_json` reads them."""
        return {**vars(self), "inputs": list(self.inputs)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Step":
        """Return the step that `as_json` wrote."""
        return cls(**{**values, "inputs": tuple(values["inputs"])})

    def code(self) -> str:
        """Return the SHA-256 over all that a key holds besides the exam and what the step reads of it."""
        return files.sha256_json(
            {
                "step": self.name,
                "stage": self.stage,
                "version": self.version,
                "parameters": dict(self.parameters),
                "models": dict(self.models),
            }
        )


def key_of(exam_id: str, code: str, read: Sequence[str]) -> str:
    """Return the input key of a result: it is the same exactly when the exam, the code and all inputs are.

    Args:
        exam_id: the exam.
        code: `Step.code()`.
        read: digests of what the step reads, in the order of `Step.inputs`: the digest of the exam's images
            (`images_digest`), or those of output manifests.

    Returns:
        A SHA-256, in lower-case hexadecimal.
    """
    return hashlib.sha256("\n".join((code, *read, exam_id)).encode()).hexdigest()


def images_digest(images: Sequence[Mapping[str, Any]]) -> str:
    """Return the digest of an exam's images: of their content, names and views; not of where they lie.

    Args:
        images: `ImageFile.as_json()` values, in order.
    """
    return files.sha256_json([{key: value for key, value in image.items() if key != "path"} for image in images])
