"""The command `ckbd`: encode, decode, info, eval, warm-up, train, fit-tables."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ckbd import arguments
from ckbd import target as targets
from ckbd.files import BAD_INPUT, Ordered, UsageError, complain, plan, reason_of, run

if TYPE_CHECKING:
    from ckbd.api import Codec
    from ckbd.light.decoder import Decoder


GPU_FILES = 3  # at a time: one is read, one in the networks, one written


def _load(args: argparse.Namespace) -> Codec:
    import ckbd

    try:
        return ckbd.load(
            args.model, device=args.device, threads=args.threads, backend=args.backend, precision=args.precision
        )
    except BAD_INPUT as error:
        raise UsageError(f"model {args.model}: {reason_of(error, args.model)}") from error


def _light(args: argparse.Namespace, streams: Sequence[Path]) -> Decoder | None:
    """The decoder without torch, where it is the quicker way and nothing else is asked for."""
    if (args.device, args.backend) != ("cpu", "auto") or args.precision == "bfloat16":
        return None
    from ckbd.light import choice
    from ckbd.light.decoder import Decoder

    try:
        return Decoder(args.model) if choice.serves(args.model, streams) else None
    except BAD_INPUT as error:
        raise UsageError(f"model {args.model}: {reason_of(error, args.model)}") from error


def _side_by_side(codec: Codec | None) -> Ordered:
    """As map, on the codec's threads: files that are read and written meanwhile cost nothing more."""
    if codec is None:
        return map
    from ckbd.pipeline import flow

    # A GPU has one memory, whatever the number of processors beside it.
    threads = codec.team.threads if codec.device.type == "cpu" else min(codec.team.threads, GPU_FILES)
    return lambda work, jobs: flow.ordered(work, jobs, codec.team, threads)


def encode(args: argparse.Namespace) -> int:
    from ckbd.codec import image

    jobs, missing = plan(args.inputs, args.out, image.find, ".ckbd", (".ckbd",))
    codec = _load(args) if jobs else None

    def work(source: Path, target: Path) -> str:
        assert codec is not None  # there is a job
        picture = image.read(source)
        if args.target_bpp is None and args.target_psnr is None:
            quality = args.quality
            (stream,) = codec.encode([picture], quality=quality, effort=args.effort)
        else:
            wanted = {"bpp": args.target_bpp, "psnr": args.target_psnr}
            stream, quality, warning = targets.encode(codec, picture, args.effort, **wanted)
            if warning:
                complain(source, f"warning: {warning}")
        target.parent.mkdir(parents=True, exist_ok=True)
        with image.replacing(target) as temporary:
            temporary.write_bytes(stream)
        bpp = 8 * len(stream) / (picture.height * picture.width)
        return f"{len(stream)} bytes  {bpp:.4f} bpp  quality {quality:g}"

    return run(jobs, missing, work, force=args.force, ordered=_side_by_side(codec))


def decode(args: argparse.Namespace) -> int:
    if "numpy" not in sys.modules:  # which reads it: products are small here, and threads would spin for each other
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from ckbd.codec import image

    jobs, missing = plan(args.inputs, args.out, lambda folder: image.find(folder, (".ckbd",)), ".png", image.SUFFIXES)
    light = _light(args, [source for source, _ in jobs]) if jobs else None
    codec = _load(args) if jobs and light is None else None

    def work(source: Path, target: Path) -> str:
        stream = source.read_bytes()
        if light is not None:
            picture = light.decode(stream)
        else:
            assert codec is not None  # there is a job
            (picture,) = codec.decode_pictures([stream])
        target.parent.mkdir(parents=True, exist_ok=True)
        image.write(target, picture)
        return f"{picture.width}x{picture.height}"

    return run(jobs, missing, work, force=args.force, ordered=_side_by_side(codec))


def info(args: argparse.Namespace) -> int:
    from ckbd.codec import container

    try:
        data = Path(args.file).read_bytes()
        fields = container.describe(data)
    except BAD_INPUT as error:
        complain(args.file, reason_of(error, args.file))
        return 1
    if args.json:
        keys = ("name", "offset", "bytes", "value")
        rows = [dict(zip(keys, field, strict=True)) for field in fields]
        print(json.dumps({"file": args.file, "bytes": len(data), "fields": rows}, indent=1))
        return 0
    print(f"{args.file}: {len(data)} bytes")
    print(f"{'offset':>8} {'bytes':>8}  field")
    width = max((len(name) for name, *_ in fields), default=0)
    for name, offset, length, value in fields:
        print(f"{offset:8} {length:8}  {name.ljust(width)}  {value}".rstrip())
    return 0


def evaluate(args: argparse.Namespace) -> int:
    try:
        from ckbd.evaluation import evaluate as evaluation
        from ckbd.evaluation import report
    except ModuleNotFoundError as error:
        raise UsageError(f"eval needs {error.name}: pip install 'ckbd[eval]'") from error
    if not Path(args.folder).is_dir():
        raise UsageError(f"DIR {args.folder}: no such folder")
    for path in filter(None, (args.json, args.csv, args.plot)):
        if Path(path).exists() and not args.force:
            raise UsageError(f"{path} exists (--force overwrites it)")
        if not Path(path).parent.is_dir():
            raise UsageError(f"{path}: no such folder")
    try:
        if args.plot:
            report.check_plot(args.plot)
        result = evaluation.run(
            _load(args),
            args.folder,
            args.qualities or evaluation.QUALITIES,
            () if args.no_rivals else tuple(evaluation.RIVALS),
            threads=args.threads,
            effort=args.effort,
            progress=sys.stderr.isatty(),
        )
        print(report.table(result))
        if args.json:
            report.write_json(args.json, result)
        if args.csv:
            report.write_csv(args.csv, result["rows"])
        if args.plot:
            report.plot(args.plot, result)
    except BAD_INPUT as error:
        complain("eval", reason_of(error, "eval"))
        return 1
    return 0


def warm_up(args: argparse.Namespace) -> int:
    codec = _load(args)
    for line in codec.warm_up():
        print(line, flush=True)
    if args.choices:
        from ckbd.kernels import tune

        Path(args.choices).write_text(json.dumps(tune.chosen(codec.device), indent=1) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ckbd", description="A learned image codec: photo in, .ckbd file out, and back."
    )
    parser.add_argument(
        "--version", action=arguments.Version, nargs=0, help="versions, models, and what this machine has"
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    model = argparse.ArgumentParser(add_help=False)
    model.add_argument("--model", default="default", help="a shipped model's name or a .safetensors file")
    model.add_argument("--device", default="cpu", help="where the networks run: cpu, cuda, cuda:1 (default: cpu)")
    model.add_argument("--backend", default="auto", help="triton: g_a and g_s in kernels too (default: auto)")
    model.add_argument(
        "--precision",
        choices=("auto", "float32", "bfloat16"),
        default="auto",
        help="of networks on a CPU (default: auto, what is quicker here)",
    )
    model.add_argument("--threads", type=arguments.positive(int), help="CPU threads (default: one a core)")
    model.add_argument("--force", action="store_true", help="overwrite files that exist")

    effort = argparse.ArgumentParser(add_help=False)
    effort.add_argument(
        "--effort", type=int, choices=(0, 1), help="0: round; 1, the default: weigh bits against error as well"
    )

    command = commands.add_parser("encode", parents=[model, effort], help="images to .ckbd files")
    command.add_argument("inputs", nargs="+", metavar="IN", help="an image file, or a folder: every image below it")
    command.add_argument("out", metavar="OUT", help="a .ckbd file for one image; a folder otherwise")
    rate = command.add_mutually_exclusive_group()
    rate.add_argument("--quality", type=arguments.quality, default=50.0, help="1 (small) to 100 (good), default 50")
    rate.add_argument(
        "--target-bpp", type=arguments.positive(float), help="the best quality of at most this many bits a pixel"
    )
    rate.add_argument(
        "--target-psnr", type=arguments.positive(float), help="the smallest file of at least this PSNR in dB"
    )
    command.set_defaults(run=encode)

    command = commands.add_parser("decode", parents=[model], help=".ckbd files to images")
    command.add_argument("inputs", nargs="+", metavar="IN", help="a .ckbd file, or a folder: every one below it")
    command.add_argument("out", metavar="OUT", help="an image file for one stream; a folder (of PNG) otherwise")
    command.set_defaults(run=decode)

    command = commands.add_parser("info", help="every header field and section of a .ckbd file")
    command.add_argument("file", metavar="FILE")
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run=info)

    command = commands.add_parser(
        "eval", parents=[model, effort], help="rate and distortion on a folder, beside other codecs"
    )
    command.add_argument("folder", metavar="DIR", help="a folder of images")
    command.add_argument("--qualities", type=arguments.qualities, metavar="Q,Q,...", help="the points of the curve")
    command.add_argument("--no-rivals", action="store_true", help="measure ckbd alone")
    command.add_argument("--json", metavar="FILE", help="write the curves and BD-rates")
    command.add_argument("--csv", metavar="FILE", help="write one line an image and setting")
    command.add_argument("--plot", metavar="FILE", help="write the curves as .png, .svg or .pdf")
    command.set_defaults(run=evaluate)

    command = commands.add_parser(
        "warm-up", parents=[model], help="compile and measure a GPU's kernels ahead of the first decode"
    )
    command.add_argument("--choices", metavar="FILE", help="write what was chosen, as JSON")
    command.set_defaults(run=warm_up)

    commands.add_parser("train", help="train a model (ckbd train --help tells how)", add_help=False)
    commands.add_parser("fit-tables", help="fit a model's tables to pictures (see its --help)", add_help=False)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; the exit status: 0 done, 1 some file failed, 2 usage, 130 interrupted."""
    argv = sys.argv[1:] if argv is None else list(argv)
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
        args = _parser().parse_args(argv)
        status = args.run(args)
        sys.stdout.flush()
        return status
    except UsageError as error:
        print(f"ckbd: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("ckbd: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output has gone; the interpreter must not meet the same error when it flushes at
        # exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


if __name__ == "__main__":
    sys.exit(main())
