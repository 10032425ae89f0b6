"""Progress: what a line says, where it goes, and how bytes are counted."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
import threading

import pytest

from spicula import progress
from spicula.progress import Meter, show_bytes, show_seconds


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 KB"), (999_949, "999.9 KB"), (999_950, "1.0 MB"), (163.6e9, "163.6 GB"),
     (5e15, "5000.0 TB")],
)  # fmt: skip
def test_bytes_to_read(count, text):
    assert show_bytes(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (99, "99 s"), (101, "2 min"), (3600, "60 min"), (11_100, "3 h 05 min")]
)
def test_times_to_read(seconds, text):
    assert show_seconds(seconds) == text


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_line_says_pieces_bytes_rate_and_time_left(clock):
    meter = Meter("downloading", "items", [1000, 3000])
    assert meter.line() == "downloading: 0 of 2 items, 0 B of 4.0 KB, 0 B/s"
    meter.begin(1, 1000)
    meter.add(1, 500)
    clock[0] += 2
    assert meter.line() == "downloading: 0 of 2 items, 500 B of 4.0 KB, 250 B/s, 14 s left"
    meter.end(1)
    assert meter.line() == "downloading: 1 of 2 items, 500 B of 4.0 KB, 250 B/s, 6 s left"
    meter.begin(2, 3000)
    meter.add(2, 9000)  # tried twice
    assert "left" not in meter.line()
    meter.end(2)
    assert meter.line() == "downloading: 2 of 2 items, 9.5 KB of 4.0 KB, 4.8 KB/s"


def test_pieces_of_unknown_size_count_as_the_usual_one(clock):
    meter = Meter("downloading", "items", [1000, None, 3000])
    meter.begin(1, None)
    meter.end(1)
    clock[0] += 10
    assert meter.line().endswith("20 s left")


def test_without_any_size_pieces_are_counted(clock):
    meter = Meter("downloading", "items", [None, None])
    meter.begin(1, None)
    meter.add(1, 10)
    meter.end(1)
    clock[0] += 5
    assert meter.line() == "downloading: 1 of 2 items, 10 B, 2 B/s, 5 s left"
    assert Meter("downloading", "items", []).line() == "downloading: 0 of 0 items, 0 B, 0 B/s"


def test_where_there_is_no_terminal_a_line_comes_every_ten_seconds(clock, capsys):
    with Meter("downloading", "items", [1000]) as meter:
        for _ in range(25):
            clock[0] += 1
            meter.show()
    assert capsys.readouterr().err.count("\n") == 2


def test_several_threads_count_together():
    meter = Meter("downloading", "items", [10_000] * 8)

    def work(piece):
        meter.begin(piece, 10_000)
        for _ in range(10_000):
            meter.add(piece, 1)
        meter.end(piece)

    threads = [threading.Thread(target=work, args=(piece,)) for piece in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert meter.line().startswith("downloading: 8 of 8 items, 80.0 KB of 80.0 KB")


def test_on_a_terminal_there_is_a_bar():
    code = (
        "from spicula.progress import Meter\n"
        "with Meter('downloading', 'items', [1000, 1000]) as meter:\n"
        "    meter.begin(1, 1000); meter.add(1, 1000); meter.end(1); meter.show()\n"
    )
    main, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", 24, 120, 0, 0))
    subprocess.run([sys.executable, "-c", code], stderr=terminal, check=True)
    os.set_blocking(main, False)
    shown = os.read(main, 65536).decode()
    os.close(terminal)
    os.close(main)
    assert "downloading: 1 of 2 items, 1.0 KB of 2.0 KB" in shown
    assert " 50%|" in shown
