"""The command line: parse, call, print.

One module for each group of verbs. Importing them here registers the verbs, in the order that `--help` shows.
A command imports what it needs when it runs, so that `--help`, `validate` and `explain` start at once.
Nothing is computed here. An error meant for users is one line on stderr and an exit code; anything else is a
bug of ours and says so.
"""

from __future__ import annotations

import sys
import traceback
import warnings

from spbfast import __version__

from spbfast.cli import (  # isort: skip
    running,
    sweeping,
    reading,
    mapping,
    directories,
    exports,
    watching,
    planning,
    events,
    proof,
    recording,
    replays,
    fitting_verb,
    observing,
    configuration,
    system,
)
from spbfast.cli.options import EXIT_BUG, EXIT_INTERRUPTED, app
from spbfast.cli.streams import LostOutputError, exit_code_for_lost_output, flush_code, guard_streams
from spbfast.errors import SetupError, SpbfastError, StorageError

VERBS = (
    running,
    sweeping,
    reading,
    mapping,
    directories,
    exports,
    watching,
    planning,
    events,
    proof,
    recording,
    replays,
    fitting_verb,
    observing,
    configuration,
    system,
)


def _tell_warning(message: Warning | str, category: type[Warning], *place: object, **more: object) -> None:
    """A warning for users is a line like any other; those of libraries for their callers are not for them."""
    if issubclass(category, UserWarning):
        print(f"spbfast: warning: {message}", file=sys.stderr)


def main(args: list[str] | None = None) -> None:
    """Entry point of the `spbfast` command; always ends in SystemExit."""
    guard_streams()
    sys.exit(flush_code(_exit_code(args)))


def _exit_code(args: list[str] | None) -> int:
    """Run a command; its exit code."""
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _tell_warning
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
    except Exception as error:
        if isinstance(error, OSError) and error.filename is not None:
            # A path of the user's: too long a name, no permission, links in a circle.
            print(f"spbfast: error: {error.filename}: {error.strerror}", file=sys.stderr)
            return StorageError.exit_code
        return _exit_code_for_bug()
    return 0


def _exit_code_for_bug() -> int:
    """Tell the exception that nobody foresaw: packages that don't fit, or else a bug."""
    from spbfast.cli.versions import advice, unfit_packages

    if unfit := unfit_packages():
        found = ", ".join(f"{have} is installed, {needed} is needed" for have, needed in unfit)
        print(f"spbfast: error: {found}: {advice(unfit)}", file=sys.stderr)
        return SetupError.exit_code
    traceback.print_exc()
    print(f"spbfast {__version__}: internal error; please report it with the text above", file=sys.stderr)
    return EXIT_BUG
