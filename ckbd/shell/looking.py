"""`ckbd info`, `ckbd eval` and `ckbd warm-up`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from ckbd.shell import quiet
from ckbd.shell.coding import asked_for, load
from ckbd.shell.files import BAD_INPUT, PIPE, Job, UsageError, complain, reason_of, say


def info(args: argparse.Namespace) -> int:
    from ckbd.codec import checks, container
    from ckbd.model import library

    try:
        data = Job(None, None).read() if args.file == PIPE else checks.read(args.file)
        fields = container.describe(data)
    except BAD_INPUT as error:
        complain(args.file, reason_of(error, args.file))
        return 1
    if args.json:
        keys = ("name", "offset", "bytes", "value")
        rows = [dict(zip(keys, field, strict=True)) for field in fields]
        say(json.dumps({"file": args.file, "bytes": len(data), "fields": rows}, indent=1))
        return 0
    say(f"{args.file}: {len(data)} bytes", f"{'offset':>8} {'bytes':>8}  field")
    width = max((len(name) for name, *_ in fields), default=0)
    for name, offset, length, value in fields:
        if name == "model" and (known := library.name_of(bytes.fromhex(value))):
            value += f" ({known})"
        say(f"{offset:8} {length:8}  {name.ljust(width)}  {value}".rstrip())
    return 0


def evaluate(args: argparse.Namespace) -> int:
    try:
        from ckbd.evaluation import bd, page, report
        from ckbd.evaluation import evaluate as evaluation
    except ModuleNotFoundError as error:
        raise UsageError(f"eval needs {error.name}: pip install 'ckbd[eval]'") from error
    if not Path(args.folder).is_dir():
        raise UsageError(f"DIR {args.folder}: no such folder")
    outputs = [path for path in (args.json, args.csv, args.plot, args.html) if path]
    if len({Path(path).resolve() for path in outputs}) < len(outputs):
        raise UsageError("--json, --csv, --plot and --html: expected a file each")
    for path in outputs:
        if Path(path).is_dir():
            raise UsageError(f"{path} is a folder")
        if Path(path).exists() and not args.force:
            raise UsageError(f"{path} exists (--force overwrites it)")
        if not Path(path).parent.is_dir():
            raise UsageError(f"{path}: no such folder")
    with asked_for(args.model):
        codec = load(args, args.model)
    try:
        with quiet.pillow():
            if args.plot:
                report.check_plot(args.plot)
            result = evaluation.run(
                codec,
                args.folder,
                args.qualities or evaluation.QUALITIES,
                () if args.no_rivals else tuple(evaluation.RIVALS),
                threads=args.threads,
                effort=args.effort,
                metrics=args.metrics or bd.METRICS,
                progress=sys.stderr.isatty(),
            )
            print(report.table(result))
            if args.json:
                report.write_json(args.json, result)
            if args.csv:
                report.write_csv(args.csv, result["rows"])
            if args.plot:
                report.plot(args.plot, result)
            if args.html:
                options = {"effort": args.effort, "threads": args.threads, "progress": sys.stderr.isatty()}
                for line in page.write(args.html, result, codec, args.folder, args.html_quality, **options):
                    complain(args.html, line)
    except BAD_INPUT as error:
        complain("eval", reason_of(error, "eval"))
        return 1
    return 0


def warm_up(args: argparse.Namespace) -> int:
    with asked_for(args.model):
        codec = load(args, args.model)
    for line in codec.warm_up():
        print(line, flush=True)
    if args.choices:
        from ckbd.kernels import tune

        Path(args.choices).write_text(json.dumps(tune.chosen(codec.device), indent=1) + "\n")
    return 0
