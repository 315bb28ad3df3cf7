"""The command line: parse, call, print.

One module for each group of verbs. Importing them here registers the verbs, in the order that `--help` shows.
A command imports what it needs when it runs, so that `--help`, `validate` and `explain` start at once.
Nothing is computed here. An error meant for users is one line on stderr and an exit code; anything else is a
bug of ours and says so.
"""

from __future__ import annotations

import os
import sys
import traceback

from spbfast import __version__

from spbfast.cli import (  # isort: skip
    running,
    sweeping,
    reading,
    directories,
    planning,
    events,
    proof,
    recording,
    replays,
    observing,
    configuration,
    system,
)
from spbfast.cli.options import EXIT_BUG, EXIT_INTERRUPTED, app
from spbfast.errors import SpbfastError

VERBS = (
    running,
    sweeping,
    reading,
    directories,
    planning,
    events,
    proof,
    recording,
    replays,
    observing,
    configuration,
    system,
)


def main(args: list[str] | None = None) -> None:
    """Entry point of the `spbfast` command; always ends in SystemExit."""
    try:
        app(args=args, prog_name="spbfast")
    except SpbfastError as error:
        text = str(error)
        print(text if ": error: " in text else f"spbfast: error: {text}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("spbfast: interrupted", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except Exception:
        traceback.print_exc()
        print(f"spbfast {__version__}: internal error; please report it with the text above", file=sys.stderr)
        sys.exit(EXIT_BUG)
