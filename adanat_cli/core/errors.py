"""The one exception for mistakes that a user can make."""


class AdaNATError(Exception):
    """A user's mistake or a failed run, told in one line.

    The message says what came, what was expected and what to try. ``cli.main`` prints it without
    a traceback and exits with 1; every other exception is a bug and keeps its traceback.
    """


def require(condition: bool, message: str) -> None:
    """Raise ``AdaNATError(message)`` unless the condition holds."""
    if not condition:
        raise AdaNATError(message)
