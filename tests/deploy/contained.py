"""The commands of a Dockerfile, run as in its container without one: own root that is read-only, user, and processes.

The root is made of this machine's /usr and of the environment that runs the tests, in namespaces of its own; its
loopback is another one than that of this machine.
"""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from process_tree import below

import spicula

CONTAINERS = Path(__file__).parents[2] / "deploy/containers"
SECONDS = 60
_UP = "import fcntl, socket, struct; fcntl.ioctl(socket.socket(), 0x8914, struct.pack('16sh', b'lo', 0x49))"


class Dockerfile:
    """What the last stage of a Dockerfile says.

    Attributes:
        environment: ENV.
        user: USER, numbers of user and group.
        start: ENTRYPOINT and CMD, words.
        health: HEALTHCHECK, words.
        stop: STOPSIGNAL.
        folder: WORKDIR.
    """

    def __init__(self, name):
        self.text = (CONTAINERS / name).read_text()
        lines = re.sub(r"^#.*\n", "", self.text, flags=re.M).replace("\\\n", " ").splitlines()
        last = max(number for number, line in enumerate(lines) if line.startswith("FROM "))
        said = [line.split(None, 1) for line in lines[last:] if line.strip()]
        self.environment = {
            key: value.replace("$PATH", "/usr/local/bin:/usr/bin:/bin")
            for name, rest in said
            if name == "ENV"
            for key, _, value in [word.partition("=") for word in shlex.split(rest)]
        }
        values = dict(said)
        self.user, self.folder, self.stop = values["USER"].split(":"), values["WORKDIR"], values["STOPSIGNAL"]
        self.start = json.loads(values["ENTRYPOINT"]) + json.loads(values["CMD"])
        self.health = json.loads(values["HEALTHCHECK"].partition(" CMD ")[2])


class Container:
    """A Dockerfile's start command that runs.

    Args:
        dockerfile: which.
        mounts: folders that are mounted, read-only, by the place without its first slash: {"models": folder}.
        folder: for logs, and the volume at /var/lib/spicula.
        environment: as with `docker run --env`.

    Attributes:
        volume: the folder that is mounted at /var/lib/spicula.
    """

    def __init__(self, dockerfile, mounts, folder, environment=None):
        can = os.geteuid() == 0 and subprocess.run(["unshare", "-mpnf", "true"], capture_output=True, check=False)
        if not can or can.returncode:
            pytest.skip("needs root, and the right to make namespaces")
        self.dockerfile, self.volume = dockerfile, folder / "volume"
        self.volume.mkdir()
        os.chown(self.volume, *map(int, dockerfile.user))
        root = folder / "root"
        root.mkdir()
        own = [str(path) for path in (sys.prefix, sys.base_prefix, Path(spicula.__file__).parents[1])]
        places = {"opt/spicula": sys.prefix} | {path.lstrip("/"): path for path in own} | mounts
        script = root_script(root, places, self.volume)
        self.environment = dockerfile.environment | (environment or {})
        script += f"\nexec chroot {root} {shlex.join(self._as_user(dockerfile.start))}\n"
        self._stderr = folder / "stderr"
        with self._stderr.open("w") as stderr:
            namespaces = ["unshare", "--mount", "--pid", "--net", "--ipc", "--fork"]
            self._process = subprocess.Popen([*namespaces, "sh", "-euc", script], stderr=stderr)

    def _as_user(self, command):
        user, group = self.dockerfile.user
        ids = [f"--reuid={user}", f"--regid={group}", "--clear-groups", "--no-new-privs", "--bounding-set=-all"]
        variables = [f"{key}={value}" for key, value in self.environment.items()]
        where = ["/bin/sh", "-c", 'cd "$0" && exec "$@"', self.dockerfile.folder]
        return ["/usr/bin/setpriv", *ids, "--inh-caps=-all", *where, "/usr/bin/env", "-i", *variables, *command]

    @property
    def first(self):
        """Its first process."""
        while not (found := below(self._process.pid)):
            assert self._process.poll() is None, self.log()
        return found[0][0]

    def begin(self, *command):
        """Begin a command in it, as `docker exec` does; its input and output are pipes."""
        enter = ["nsenter", f"--target={self.first}", "--mount", "--pid", "--net", "--ipc", "--root", "--wd"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        return subprocess.Popen([*enter, *self._as_user(command)], text=True, **pipes)

    def run(self, *command):
        """Run a command in it; return its exit status and what it wrote."""
        process = self.begin(*command)
        written, _ = process.communicate(timeout=SECONDS)
        return process.returncode, written

    def health(self):
        """Run the health check, and return its exit status."""
        return self.run(*self.dockerfile.health)[0]

    def wait_until_ready(self):
        until = time.monotonic() + SECONDS
        while "\nready" not in self.log():
            assert self._process.poll() is None and time.monotonic() < until, self.log()
            time.sleep(0.05)

    def log(self):
        return self._stderr.read_text()

    def stop(self):
        """Send STOPSIGNAL to its first process."""
        os.kill(self.first, signal.Signals[self.dockerfile.stop])

    def wait(self):
        """Wait for its end, and return the exit status."""
        return self._process.wait(SECONDS)

    def close(self):
        for pid, _ in below(self._process.pid)[:1]:
            os.kill(pid, signal.SIGKILL)  # and all processes of its namespace with it
        self._process.wait(SECONDS)


def root_script(root, places, volume):
    """The commands that make a root: what is there is read-only, but /tmp, the volume, and shared memory."""
    lines = ["mount --make-rprivate /", f"mount -t tmpfs -o mode=755 tmpfs {root}", f"cd {root}"]
    lines += ["mkdir -p usr etc proc dev tmp var/lib/spicula", "mount --rbind /usr usr", "mount -o remount,bind,ro usr"]
    lines += ["for one in bin sbin lib lib64; do if [ -e /$one ]; then ln -s usr/$one $one; fi; done"]
    lines += ["cp /etc/ld.so.cache etc/ 2> /dev/null || true", "printf '127.0.0.1 localhost\\n' > etc/hosts"]
    lines += ["mount -t proc proc proc", "mount -t tmpfs -o mode=1777,size=64m,noexec,nosuid,nodev tmpfs tmp"]
    lines += ["mount -t tmpfs -o mode=755 tmpfs dev", "mkdir -m 1777 dev/shm", "ln -s /proc/self/fd dev/fd"]
    lines += [f"touch dev/{one} && mount --bind /dev/{one} dev/{one}" for one in ("null", "zero", "urandom", "random")]
    for place, source in ((shlex.quote(place), shlex.quote(str(source))) for place, source in places.items()):
        lines += [f"mkdir -p {place}", f"mount --bind {source} {place}", f"mount -o remount,bind,ro {place}"]
    lines += [f"mount --bind {volume} var/lib/spicula", f'{sys.executable} -c "{_UP}"']
    return "\n".join([*lines, f"mount -o remount,ro {root}"])


@contextmanager
def contained(*arguments, **options):
    container = Container(*arguments, **options)
    try:
        yield container
    finally:
        container.close()
