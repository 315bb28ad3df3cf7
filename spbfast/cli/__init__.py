"""The command line: parse, call, print.

One module for each group of verbs. Importing them here registers the verbs, in the order that `--help` shows.
A command imports what it needs when it runs, so that `--help`, `validate` and `explain` start at once.
Nothing is computed here. An error meant for users is one line on stderr and an exit code; anything else is a
bug of ours and says so.
"""

from __future__ import annotations

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
from spbfast.cli.streams import LostOutputError, exit_code_for_lost_output, flush_code, guard_streams
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
    guard_streams()
    sys.exit(flush_code(_exit_code(args)))


def _exit_code(args: list[str] | None) -> int:
    """Run a command; its exit code."""
    try:
        app(args=args, prog_name="spbfast")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0 if end.code is None else EXIT_BUG
    except SpbfastError as error:
        text = str(error)
        print(text if ": error: " in text else f"spbfast: error: {text}", file=sys.stderr)
        return error.exit_code
    except LostOutputError as lost:
        return exit_code_for_lost_output(lost)
    except KeyboardInterrupt:
        print("spbfast: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except Exception:
        traceback.print_exc()
        print(f"spbfast {__version__}: internal error; please report it with the text above", file=sys.stderr)
        return EXIT_BUG
    return 0
