"""The command `ckbd`: encode, decode, info, eval, warm-up, train, fit-tables, fit-preview."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence

from ckbd.shell import parser
from ckbd.shell.files import OutputError, UsageError, complain, say


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; the exit status: 0 done, 1 some file failed, 2 usage, 130 interrupted."""
    argv = sys.argv[1:] if argv is None else list(argv)
    for stream in (sys.stdout, sys.stderr):  # names of files are not always text
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        if argv[:1] == ["train"]:
            if argv[1:2] and not argv[1].startswith("-"):
                from ckbd.training import recipe

                return recipe.main(argv[1:])
            from ckbd.training import train

            return train.main(argv[1:]) or 0
        if argv[:1] == ["fit-tables"]:
            from ckbd.training import fit

            return fit.main(argv[1:])
        if argv[:1] == ["fit-preview"]:
            from ckbd.training import preview

            return preview.main(argv[1:])
        args = parser.parse(argv)
        status = args.run(args)
        say()
        return status
    except UsageError as error:
        print(f"ckbd: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("ckbd: interrupted", file=sys.stderr)
        return 130
    except (BrokenPipeError, OutputError) as error:
        # The reader of our output has gone, or the disk is full; the interpreter must not meet the same error when it
        # flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, OutputError):
            complain("standard output", str(error))
        return 1


if __name__ == "__main__":
    sys.exit(main())
