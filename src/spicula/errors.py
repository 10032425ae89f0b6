"""The errors a user can meet. Each message is one line: what was wrong, in which input, and the way out."""


class SpiculaError(Exception):
    """Something failed that the user can understand and mend. Exit status 1."""

    exit_status = 1


class UsageError(SpiculaError):
    """The command, the recipe or an option was wrong. Exit status 2."""

    exit_status = 2


class RejectedImageError(SpiculaError):
    """One image cannot be used. Never stops a batch: it becomes a row of the rejected table.

    The message is the reason alone, without the path: the table has the path in a column of its own.
    """
