"""Logs for TensorBoard."""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Record = Callable[[Mapping[str, Any]], None]

_TAGS = {
    "train_loss": "loss/train",
    "val_loss": "loss/validation",
    "val_auc": "validation/auc",
    "val_accuracy": "validation/accuracy",
    "learning_rate": "training/learning_rate",
    "images_per_second": "training/images_per_second",
}


@contextmanager
def log(folder: Path, epochs: Sequence[Mapping[str, Any]]) -> Iterator[Record]:
    """Yield a function that records an epoch.

    The folder is written anew, beginning with the `epochs` that are already done: what a killed run had logged of an
    epoch that it did not finish would otherwise stand there twice.
    """
    from torch.utils.tensorboard import SummaryWriter

    shutil.rmtree(folder, ignore_errors=True)
    writer = SummaryWriter(str(folder))

    def record(epoch: Mapping[str, Any]) -> None:
        for name, tag in _TAGS.items():
            if epoch[name] is not None:
                writer.add_scalar(tag, epoch[name], epoch["epoch"])
        writer.flush()

    try:
        for epoch in epochs:
            record(epoch)
        yield record
    finally:
        writer.close()
