"""Errors a person can mend, and how the command lines show them."""

import contextlib
import os
import sys
from collections.abc import Iterator


class RdejaxError(ValueError):
    """A problem with what the user gave: one sentence naming what, why and the mend."""


@contextlib.contextmanager
def cli_errors() -> Iterator[None]:
    """Turns errors a person can mend into one line on stderr and a non-zero exit.

    `RdejaxError` exits with 2, a full disk or an unwritable file with 1, Ctrl-C with 130. Any other
    exception is a defect of this library and keeps its traceback.
    """
    try:
        yield
    except RdejaxError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("interrupted: run the same command again to continue", file=sys.stderr)
        raise SystemExit(130) from None
    except BrokenPipeError:
        # The reader of our output went away; a second error while Python flushes would hide that.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(141) from None
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {where}{error.strerror or error}", file=sys.stderr)
        raise SystemExit(1) from None
