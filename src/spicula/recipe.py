"""A study as validated data: one TOML file. Unknown keys and impossible values are named in the error."""

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from spicula import files
from spicula.curate.splits import SplitSettings
from spicula.errors import UsageError
from spicula.imaging.preprocess import Preprocess
from spicula.models.settings import ModelSettings

#: How pydantic names the kinds of model settings in the place of an error.
_UNION_TAGS = ("linear", "network")


class EvaluationSettings(BaseModel):
    """How the study is judged."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    resamples: int = Field(default=2000, ge=100, le=100_000)  # bootstrap resamples of patients


class BundleSettings(BaseModel):
    """Which model becomes the bundle."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str | None = None  # a model's name; None: the one with the best AUC on validation


class Recipe(BaseModel):
    """One study: a dataset, its preprocessing and splits, the models to compare, and how to judge them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
    title: str
    question: str = ""
    dataset: str
    options: dict[str, Any] = Field(default_factory=dict)  # the dataset's own; see `spicula datasets`
    seed: int = Field(default=0, ge=0, lt=2**32)
    preprocess: Preprocess = Preprocess()
    split: SplitSettings = SplitSettings()
    models: Annotated[tuple[ModelSettings, ...], Field(min_length=1)]
    evaluation: EvaluationSettings = EvaluationSettings()
    bundle: BundleSettings = BundleSettings()

    @model_validator(mode="after")
    def _names_are_consistent(self) -> Self:
        names = [model.name for model in self.models]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two models have the name {twice[0]!r}; each needs one of its own")
        if self.bundle.model is not None and self.bundle.model not in names:
            raise ValueError(f"bundle.model is {self.bundle.model!r}, which is none of the models {', '.join(names)}")
        return self

    def digest(self) -> str:
        """Return the SHA-256 of the recipe's content."""
        return files.sha256_json(self.model_dump(mode="json"))


def shipped() -> dict[str, Path]:
    """Return the recipes that come with Spicula, by name."""
    folder = Path(str(resources.files("spicula.recipes").joinpath("demo.toml"))).parent
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def load(name: str, overrides: Iterable[str] = ()) -> Recipe:
    """Read a recipe and validate it.

    Args:
        name: a TOML file, or the name of a recipe that comes with Spicula.
        overrides: `KEY=VALUE` each, which replace what the file says: `preprocess.size=[96, 96]`, or
            `models.NAME.epochs=5` for the model of that name. A value is TOML; what is not is taken as text.

    Raises:
        UsageError: there is no such recipe, or it is not valid; the message names the key and the value.
    """
    path = _find(name)
    try:
        text = path.read_text(encoding="utf-8")
        content = tomllib.loads(text)
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not a text file in UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path} is not valid TOML: {error}") from error
    except OSError as error:
        raise UsageError(f"cannot read the recipe {path}: {error.strerror}") from error
    _resolve_weights(content, path.parent)
    for override in overrides:
        _apply(content, override, "--set")
    return validate(content, where=str(path))


def validate(content: Mapping[str, Any], where: str) -> Recipe:
    """Make a Recipe of plain data; `where` says in errors what the data came from.

    Raises:
        UsageError: a key is unknown or missing, or a value is impossible.
    """
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        found = error.errors(include_url=False)
        # A list whose items are all wrong is reported as too short besides, which helps nobody.
        found = [one for one in found if one["type"] != "too_short" or len(found) == 1]
        problems = [_sentence(content, problem) for problem in found]
        raise UsageError(f"{where}: {'; '.join(dict.fromkeys(problems))}") from None


def parse_options(assignments: Iterable[str], flag: str) -> dict[str, Any]:
    """Read `KEY=VALUE` each into a dictionary; values are TOML, or text where they are not. `flag` stands in errors."""
    content: dict[str, Any] = {}
    for assignment in assignments:
        _apply(content, assignment, flag)
    return content


def _find(name: str) -> Path:
    path = Path(name)
    if path.is_file():
        return path
    known = shipped()
    if name in known:
        return known[name]
    raise UsageError(f"no recipe {name}: neither a file nor one of {', '.join(known)}")


def _resolve_weights(content: dict[str, Any], folder: Path) -> None:
    """A weights file that a recipe names stands relative to the recipe, wherever the command is typed."""
    models = content.get("models")
    for model in models if isinstance(models, list) else []:
        weights = model.get("weights") if isinstance(model, dict) else None
        if isinstance(weights, str) and weights != "hub":
            model["weights"] = str(folder / weights)


def _apply(content: dict[str, Any], override: str, flag: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UsageError(f"{flag} {override}: expected KEY=VALUE")
    *parents, last = key.split(".")
    place: Any = content
    for parent in parents:
        place = _descend(place, parent, f"{flag} {override}")
    if not isinstance(place, dict):
        raise UsageError(f"{flag} {override}: {'.'.join(parents)} holds no keys")
    place[last] = _toml_value(text)


def _descend(place: Any, key: str, where: str) -> Any:
    if isinstance(place, list):
        names = [item.get("name") for item in place]
        if key not in names:
            raise UsageError(f"{where}: the recipe has no model {key!r}; it has {', '.join(map(str, names))}")
        return place[names.index(key)]
    if not isinstance(place, dict):
        raise UsageError(f"{where}: {key!r} stands below a single value")
    return place.setdefault(key, {})


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _sentence(content: Mapping[str, Any], problem: Mapping[str, Any]) -> str:
    """One validation problem as a phrase that names the key as the user wrote it."""
    location = list(problem["loc"])
    key = ".".join(_names(content, location))
    if problem["type"] == "extra_forbidden":
        close = difflib.get_close_matches(str(location[-1]), _known_keys(problem), n=1)
        return f"unknown key {key!r}" + (f"; did you mean {close[0]!r}?" if close else "")
    if problem["type"] == "missing":
        return f"the key {key!r} is missing"
    message = problem["msg"].removeprefix("Value error, ")
    if not key:
        return str(message)
    value = "" if isinstance(problem["input"], dict) else f" = {problem['input']!r}"
    return f"{key}{value}: {message[:1].lower()}{message[1:]}"


def _names(content: Any, location: list[Any]) -> Iterable[str]:
    """The path to a value, with models by their name and without the tags of unions."""
    place = content
    for part in location:
        if isinstance(place, list) and isinstance(part, int) and part < len(place):
            place = place[part]
            name = place.get("name") if isinstance(place, dict) else None
            yield str(name or part)
        elif isinstance(place, dict) and part in place:
            place = place[part]
            yield str(part)
        elif part is location[-1] and part not in _UNION_TAGS:
            yield str(part)


def _known_keys(problem: Mapping[str, Any]) -> list[str]:
    from spicula.models.settings import LinearSettings, NetworkSettings

    models: list[type[BaseModel]] = [Recipe, Preprocess, SplitSettings, EvaluationSettings, BundleSettings]
    models += [LinearSettings, NetworkSettings]
    return sorted({name for model in models for name in model.model_fields})
