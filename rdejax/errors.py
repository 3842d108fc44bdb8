"""Errors a person can mend."""


class RdejaxError(ValueError):
    """A problem with what the user gave: one sentence naming what, why and the mend."""


class BadFile(RdejaxError):
    """A file that cannot be used.

    Attributes:
      problem: what is wrong, in a word or two; `rdejax.data.check` counts by it.
    """

    def __init__(self, text: str, problem: str = "unreadable"):
        super().__init__(text)
        self.problem = problem


def first_line(error: BaseException, most: int | None = None) -> str:
    """The first line that an error of a library says, for a message; its kind where it says none.

    Args:
      error: what was raised.
      most: characters; None for all.
    """
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:most]


def shorten(names: list[str], most: int = 5) -> str:
    """The first few names of a list, for a message."""
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
