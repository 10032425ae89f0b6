"""The class of Ray actors, which is there before Spicula is."""

from typing import Any


def actor_class() -> type:
    """Return the class, whose `arrive` answers before anything of Spicula is imported.

    Ray sends a class that a function makes as a whole, and one of a module as a name to be imported. So the driver can
    tell an actor that hangs in an import from one that Ray has no room for.
    """

    class RayActor:
        def __init__(self, *arguments: Any) -> None:
            self._arguments = arguments

        def arrive(self) -> None:
            """Say that there was room."""

        def look(self, token: str | None) -> Any:
            """Become a worker, and say where it is; see `engines.ray_worker`."""
            from spicula.exams.engines.ray_worker import RayWorker

            self._worker = RayWorker(*self._arguments)
            return self._worker.look(token)

        def execute(self, task: Any, seen: Any) -> Any:
            """Do a task; see `engines.ray_worker`."""
            return self._worker.execute(task, seen)

    return RayActor
