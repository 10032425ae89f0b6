import errno
import io
import json

import pytest

from spicula.errors import RejectedImageError, SpiculaError
from spicula.imaging.worker_process import guarded, serve


def spoken(work, *chunks):
    """What a worker says that is given these chunks."""
    out = io.StringIO()
    serve([json.dumps(one) for one in ({"setting": 1}, *chunks)], out, lambda setting: work)
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_a_worker_says_what_becomes_of_each_task():
    def work(tasks, tell):
        for number, task in enumerate(tasks):
            tell("rejected", number, "bad") if task["bad"] else tell("done", number)
        tell("saved", [0])

    assert spoken(work, [{"bad": False}, {"bad": True}], []) == [
        ["ready"],
        *[["done", 0], ["rejected", 1, "bad"], ["saved", [0]], ["end"]],
        *[["saved", [0]], ["end"]],
    ]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (SpiculaError("the disk is full"), "the disk is full"),
        (OSError(errno.EIO, "Input/output error", "/out/a.png"), "cannot write /out/a.png: Input/output error"),
        (OSError(errno.EFBIG, "File too large"), "cannot write: File too large"),
    ],
)
def test_what_is_not_an_images_fault_ends_the_work(error, message):
    def work(tasks, tell):
        raise error

    ready, (kind, told) = spoken(work, [{}])
    assert (ready, kind) == (["ready"], "failed")
    assert told.startswith(message)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RejectedImageError("as it is"), "as it is"),
        (OSError(errno.ENOENT, "No such file or directory"), "cannot be read: No such file or directory"),
        (MemoryError(), "preparing it takes more memory than there is"),
        (KeyError("odd"), "preparing it failed (KeyError: 'odd')"),
    ],
)
def test_whatever_goes_wrong_with_an_image_is_a_reason(error, reason):
    def step():
        raise error

    with pytest.raises(RejectedImageError) as caught:
        guarded(step, "preparing")
    assert str(caught.value) == reason


def test_a_disk_that_is_full_is_no_images_fault():
    def step():
        raise SpiculaError("full")

    with pytest.raises(SpiculaError) as caught:
        guarded(step, "preparing")
    assert not isinstance(caught.value, RejectedImageError)
