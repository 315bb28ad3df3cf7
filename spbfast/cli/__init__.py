"""The command line: parse, call, print.

One module per group of verbs; importing them here registers the verbs, and the order of the imports is
the order of `--help`. Every command imports what it needs when it runs, so that `--help`, `validate` and
`explain` start at once. Nothing is computed here. Errors meant for users are one line on stderr and an exit
code; anything else is a bug of ours and says so.
"""

from __future__ import annotations

import os
import sys
import traceback

from spbfast import __version__

from spbfast.cli import running  # isort: skip
from spbfast.cli import sweeping  # isort: skip
from spbfast.cli import reading as results  # isort: skip
from spbfast.cli import directories  # isort: skip
from spbfast.cli import planning  # isort: skip
from spbfast.cli import events as records  # isort: skip
from spbfast.cli import proof  # isort: skip
from spbfast.cli import configuration  # isort: skip
from spbfast.cli import system  # isort: skip
from spbfast.cli.options import EXIT_BUG, EXIT_INTERRUPTED, app
from spbfast.errors import SpbfastError

__all__ = [
    "__version__",
    "app",
    "configuration",
    "directories",
    "main",
    "planning",
    "proof",
    "records",
    "results",
    "running",
    "sweeping",
    "system",
]


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
