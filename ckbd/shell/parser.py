"""The command line's grammar."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ckbd.codec import limits
from ckbd.shell import arguments, coding, looking


def parser() -> argparse.ArgumentParser:
    """Of `ckbd`: what it parses has `run`, the function of the command."""
    made = argparse.ArgumentParser(
        prog="ckbd", description="A learned image codec: photo in, .ckbd file out, and back."
    )
    made.add_argument(
        "--version", action=arguments.Version, nargs=0, help="versions, models, and what this machine has"
    )
    commands = made.add_subparsers(dest="command", required=True, metavar="COMMAND")
    machine, effort, files = _machine(), _effort(), _files()

    command = commands.add_parser("encode", parents=[_model(), machine, effort, files], help="images to .ckbd files")
    _paths(command, "an image file, a folder: every image below it, or -: standard input", ".ckbd")
    command.add_argument("--keep-suffix", action="store_true", help="a.jpg.ckbd in place of a.ckbd")
    rate = command.add_mutually_exclusive_group()
    rate.add_argument(
        "--quality", type=arguments.quality, default=50.0, metavar="Q", help="1 (small) to 100 (good), default 50"
    )
    rate.add_argument(
        "--target-bpp",
        type=arguments.positive(float),
        metavar="BPP",
        help="the best quality of at most this many bits a pixel",
    )
    rate.add_argument(
        "--target-psnr",
        type=arguments.positive(float),
        metavar="DB",
        help="the smallest file of at least this PSNR in dB",
    )
    command.set_defaults(run=coding.encode, parser=command)

    own = "a model's name or a .safetensors file (default: the one that each stream names)"
    command = commands.add_parser("decode", parents=[_model(None, own), machine, files], help=".ckbd files to images")
    _paths(command, "a .ckbd file, a folder: every one below it, or -: standard input", "image")
    command.add_argument(
        "--format",
        type=arguments.suffix,
        metavar="F",
        help="of files whose name OUT does not say: jpg, webp, ... (png)",
    )
    command.add_argument(
        "--region", type=arguments.region, metavar="L,T,R,B", help="only the pixels from (L, T) to before (R, B)"
    )
    command.add_argument(
        "--scale", type=arguments.scale, default=1.0, metavar="S", help="1/2, 1/4 or 1/8: smaller, and sooner"
    )
    command.set_defaults(run=coding.decode, parser=command)

    command = commands.add_parser("info", help="every header field and section of a .ckbd file")
    command.add_argument("file", metavar="FILE", help="a .ckbd file, or -: standard input")
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run=looking.info, parser=command)

    force = argparse.ArgumentParser(add_help=False)
    force.add_argument("--force", action="store_true", help="overwrite files that exist")
    command = commands.add_parser(
        "eval",
        parents=[_model(), machine, effort, force],
        help="rate and distortion on a folder, beside other codecs",
    )
    command.add_argument("folder", metavar="DIR", help="a folder of images")
    command.add_argument("--qualities", type=arguments.qualities, metavar="Q,Q,...", help="the points of the curve")
    command.add_argument("--no-rivals", action="store_true", help="measure ckbd alone")
    command.add_argument(
        "--metrics",
        type=arguments.metrics,
        metavar="M,M,...",
        help="what to measure: psnr (always is), ms-ssim, ssimulacra2 (default: all three)",
    )
    command.add_argument("--json", metavar="FILE", help="write the curves and BD-rates")
    command.add_argument("--csv", metavar="FILE", help="write one line an image and setting")
    command.add_argument("--plot", metavar="FILE", help="write the curves as .png, .svg or .pdf")
    command.add_argument("--html", metavar="FILE", help="write a page to look at: curves, tables, pictures")
    command.add_argument(
        "--html-quality",
        type=arguments.quality,
        default=50.0,
        metavar="Q",
        help="at which quality pictures are shown, default 50",
    )
    command.set_defaults(run=looking.evaluate, parser=command)

    command = commands.add_parser(
        "warm-up", parents=[_model(), machine], help="compile and measure a GPU's kernels ahead of the first decode"
    )
    command.add_argument("--choices", metavar="FILE", help="write what was chosen, as JSON")
    command.set_defaults(run=looking.warm_up, parser=command)

    commands.add_parser("train", help="train a model (ckbd train --help tells how)", add_help=False)
    commands.add_parser("fit-tables", help="fit a model's tables to pictures (see its --help)", add_help=False)
    commands.add_parser("fit-preview", help="give a model a preview, for --scale (see its --help)", add_help=False)
    return made


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments; paths may stand before and after options. Exits with usage and status 2 for what is none."""
    made, argv = parser(), list(argv)
    after: list[str] = []
    if argv[:1] in (["encode"], ["decode"]) and "--" in argv:  # behind it all are paths
        place = argv.index("--")
        argv, after = argv[:place], argv[place + 1 :]
    args, rest = made.parse_known_args(argv)
    if rest and (not hasattr(args, "paths") or any(one.startswith("-") and one != "-" for one in rest)):
        args.parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if hasattr(args, "paths"):
        args.paths += rest + after
        if not args.paths:
            args.parser.error("the following arguments are required: IN")
    return args


def _model(
    default: str | None = "default", text: str = "a model's name or a .safetensors file"
) -> argparse.ArgumentParser:
    group = argparse.ArgumentParser(add_help=False)
    group.add_argument("--model", default=default, help=text)
    return group


def _machine() -> argparse.ArgumentParser:
    group = argparse.ArgumentParser(add_help=False)
    group.add_argument("--device", default="cpu", help="where the networks run: cpu, cuda, cuda:1 (default: cpu)")
    group.add_argument("--backend", default="auto", help="triton: g_a and g_s in kernels too (default: auto)")
    group.add_argument(
        "--precision",
        choices=("auto", "float32", "bfloat16"),
        default="auto",
        help="of networks on a CPU (default: auto, what is quicker here)",
    )
    group.add_argument(
        "--threads", type=arguments.positive(int), metavar="N", help="CPU threads (default: one a core)"
    )
    return group


def _effort() -> argparse.ArgumentParser:
    group = argparse.ArgumentParser(add_help=False)
    group.add_argument(
        "--effort", type=int, choices=(0, 1), help="0: round; 1, the default: weigh bits against error as well"
    )
    return group


def _files() -> argparse.ArgumentParser:
    group = argparse.ArgumentParser(add_help=False)
    there = group.add_mutually_exclusive_group()
    there.add_argument("--force", action="store_true", help="overwrite files that exist")
    there.add_argument(
        "--skip-existing", action="store_true", help="leave out what is there: takes up a job that was interrupted"
    )
    group.add_argument("--quiet", "-q", action="store_true", help="print only what went wrong")
    group.add_argument("--strip", action="store_true", help="leave EXIF and XMP behind")
    group.add_argument(
        "--max-pixels",
        type=arguments.positive(int),
        default=limits.MAX_PIXELS,
        metavar="N",
        help="refuse larger pictures (default: %(default)s; a side counts as 64 at least)",
    )
    group.add_argument(
        "--jobs", type=arguments.positive(int), metavar="N", help="files at a time (default: one a thread)"
    )
    return group


def _paths(command: argparse.ArgumentParser, inputs: str, output: str) -> None:
    """IN and OUT, which only ckbd.shell.files can tell apart."""
    command.usage = f"ckbd {command.prog.rpartition(' ')[2]} [options] IN [IN ...] [OUT]"
    command.add_argument(
        "paths",
        nargs="*",
        metavar="IN [OUT]",
        help=f"IN: {inputs}. OUT: a file ({output}) for one IN, a folder otherwise, or -: standard output; beside IN "
        "if it is missing",
    )
