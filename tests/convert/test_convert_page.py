"""docs/convert.md: its numbers and lists are those of the code."""

from pathlib import Path
from typing import get_args

from spicula.convert import outcome, plan, presets, settings, tree
from spicula.imaging import worker_process, workers

PAGE = (Path(__file__).parents[2] / "docs" / "convert.md").read_text(encoding="utf-8")


def test_every_preset_and_format_is_there():
    for name in (*get_args(settings.Preset), *get_args(settings.Format)):
        assert f"`{name}`" in PAGE


def test_numbers_are_those_of_the_code():
    for words in (
        f"costs each process {tree.RECORD_SECONDS:.0f} seconds",
        f"takes over {workers.LIMIT_SECONDS:.0f} seconds or {worker_process.MEMORY_BYTES // 2**30} GiB",
        f"ages end at {plan.OLDEST_AGE:.0f}",
        f"(limit {presets.VINDR_CLAHE}, tiles 8 x 8)",
        f"`{outcome.CONVERSION_TABLE}`",
        f"`{outcome.REJECTED_TABLE}`",
        f"`{tree.INDEX}`",
    ):
        assert words in PAGE
