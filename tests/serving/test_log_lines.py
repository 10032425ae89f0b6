"""The log where nobody reads it: the service does not wait, and says what is missing when somebody reads again."""

import os
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the service: pip install 'spicula[serve]'")

from core_server import SECONDS, Answers, read_answer, wait_until

from spicula.serving.lines import Lines
from spicula.serving.metrics import Metrics

LOST = re.compile(r"(\d+) lines of the log are missing here")


def lost(metrics):
    (found,) = re.findall(rb"\nspicula_log_lines_lost_total (\S+)", metrics.text())
    return int(float(found))


@pytest.fixture
def pipe():
    reading, writing = os.pipe()
    yield reading, writing
    for one in (reading, writing):
        os.close(one)


def fill(writing):
    """Fill a pipe that blocks, and return how many bytes it took."""
    os.set_blocking(writing, False)
    size = 0
    while True:
        try:
            size += os.write(writing, b"." * 4096)
        except BlockingIOError:
            os.set_blocking(writing, True)
            return size


def read_all(reading, lines):
    """Let `lines` be read to their end; return what came."""
    lines.finish(0)
    pieces = []
    os.set_blocking(reading, False)
    while True:
        is_alive = lines._thread.is_alive()
        try:
            pieces.append(os.read(reading, 65536))
        except BlockingIOError:
            if not is_alive:
                break
    return b"".join(pieces).decode()


def test_lines_are_written_in_their_order(pipe):
    lines = Lines(pipe[1], Metrics())
    for number in range(250):
        print("line", number, file=lines)
    assert read_all(pipe[0], lines) == "".join(f"line {number}\n" for number in range(250))


def test_lines_of_several_threads_stay_whole(pipe):
    lines = Lines(pipe[1], Metrics())

    def work(name):
        for _ in range(100):
            print(name, name, name, sep="", file=lines)

    threads = [threading.Thread(target=work, args=[name * 20]) for name in "abcd"]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert sorted(read_all(pipe[0], lines).splitlines()) == sorted([name * 60 for name in "abcd"] * 100)


@pytest.mark.parametrize("is_blocking", [True, False])
def test_what_does_not_fit_is_counted_and_told_in_its_place(pipe, is_blocking):
    reading, writing = pipe
    metrics = Metrics()
    size = fill(writing)
    os.set_blocking(writing, is_blocking)
    lines = Lines(writing, metrics, most=10)
    lines.write("taken\n")
    wait_until(lambda: not lines._waiting)  # it is being written
    for number in range(25):
        lines.write(f"{number}\n")
    assert lost(metrics) == 15
    os.read(reading, size)
    wait_until(lambda: not lines._waiting)
    lines.write("after\n")
    said = read_all(reading, lines).splitlines()
    missing = "15 lines of the log are missing here: they were not taken in time"
    assert said == ["taken", *map(str, range(10)), missing, "after"]


def test_lines_that_cannot_be_written_are_told_when_they_can():
    reading, writing = os.pipe()
    metrics = Metrics()
    lines = Lines(writing, metrics)
    os.close(reading)
    for number in range(3):
        lines.write(f"{number}\n")
        wait_until(lambda number=number: lost(metrics) == number + 1)
    reading, other = os.pipe()
    os.dup2(other, writing)
    os.close(other)
    lines.write("again\n")
    assert [LOST.sub(r"\1", line).partition(":")[0] for line in read_all(reading, lines).splitlines()] == ["3", "again"]
    for one in (reading, writing):
        os.close(one)


@pytest.mark.slow
def test_a_service_whose_log_nobody_reads_goes_on_and_ends():
    """Thousands of lines, more than its pipe and its queue take; then SIGTERM."""
    command = [sys.executable, str(Path(__file__).with_name("core_server.py")), "bundle", "--port", "0"]
    with subprocess.Popen([*command, "--limit", "requests-a-minute=1000000"], stderr=subprocess.PIPE) as process:
        port = int(re.search(rb":(\d+) ", process.stderr.readline())[1])
        try:
            counts = [0] * 4
            threads = [threading.Thread(target=ask_often, args=[port, 5000, counts, n]) for n in range(len(counts))]
            for one in threads:
                one.start()
            for one in threads:
                one.join()
            assert counts == [5000] * 4
            answer = ask_on(port, "/metrics", 1)
            assert int(float(re.search(rb"\nspicula_log_lines_lost_total (\S+)", answer)[1])) > 5000
            process.terminate()
            assert process.wait(SECONDS) == 0
        finally:
            process.kill()


def ask_on(port, path, times):
    """Ask one after the other on one connection; return the body of the last answer."""
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as stream:
        answers = Answers(stream)
        for _ in range(times):
            stream.sendall(request)
            status, _, body = read_answer(answers)
            assert status == 200
    return body


def ask_often(port, times, counts, number):
    ask_on(port, "/test/sleep?seconds=0", times)
    counts[number] = times
