"""The command line: ``gesda train | evaluate | predict | transform | info | export | bench | warmup | deepmotion``.

Results go to standard output, as lines or with ``--json`` as one JSON object; progress, warnings and errors
go to standard error. Exit status: 0 done, 1 failed, 2 wrong usage, 130 interrupted, 141 the reader of the
output went away. May import everything of gesda; each command imports what it needs when it runs.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

from gesda.cli._arguments import build_parser
from gesda.cli._common import INTERRUPTED, UsageError, one_sentence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; those of the process by default.

    Returns
    -------
    int
        The exit status.

    Examples
    --------
    >>> main(["info", "--help"])  # doctest: +ELLIPSIS
    usage: gesda info ...
    0
    """
    parser = build_parser()
    try:
        arguments = parser.parse_args(argv)
        status = int(arguments.run(arguments))
        sys.stdout.flush()
        return status
    except SystemExit as stop:  # argparse: 0 after --help, 2 after a usage error
        return stop.code if isinstance(stop.code, int) else 0
    except UsageError as error:
        print(f"gesda: error: {one_sentence(error)}\nTry 'gesda --help'.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("gesda: interrupted; nothing was written.", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        _silence_stdout()
        return 128 + getattr(signal, "SIGPIPE", 13)
    except (ValueError, OSError, RuntimeError, ImportError, MemoryError) as error:
        print(f"gesda: error: {one_sentence(error)}", file=sys.stderr)
        return 1


def _silence_stdout() -> None:
    """Point standard output nowhere, so that Python's flush at exit does not complain once more."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    except (OSError, ValueError):
        pass
