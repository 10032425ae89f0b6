"""What a worker process of a conversion does; started as `python -m spicula.convert.worker`.

Its setting is that of `convert.layouts.setting_of`, its tasks are those of `convert.sample` as JSON.
"""

from functools import partial
from pathlib import Path
from typing import Any

from spicula.convert.layouts import layout_of
from spicula.convert.sample import Task
from spicula.convert.settings import Settings
from spicula.imaging import worker_process
from spicula.imaging.worker_process import Work


def begin(setting: dict[str, Any]) -> Work:
    """Return what works through a chunk."""
    settings = Settings.model_validate(setting["settings"])
    folder = Path(setting["folder"])
    convert_chunk = layout_of(settings).convert_chunk
    if settings.format == "dicom":
        from spicula.convert import dicom

        convert_chunk = partial(dicom.convert_chunk, key_file=Path(setting["key_file"]))
    return lambda tasks, tell: convert_chunk(folder, [Task.from_json(task) for task in tasks], settings, tell)


def main() -> None:
    """Be a worker."""
    worker_process.run(begin)


if __name__ == "__main__":
    main()
