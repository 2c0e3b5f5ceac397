"""`ckbd encode` and `ckbd decode`."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ckbd.shell import target as targets
from ckbd.shell.files import BAD_INPUT, Job, Kind, Plan, UsageError, complain, plan, reason_of
from ckbd.shell.jobs import Done, Ordered, rows, run

if TYPE_CHECKING:
    import torch

    from ckbd.api import Codec
    from ckbd.codec.image import Picture
    from ckbd.codec.machine import Team
    from ckbd.readers import Readers

GPU_FILES = 3  # at a time: one is read, one in the networks, one written
STREAM = ".ckbd"


def load(args: argparse.Namespace, model: str | Path, team: Team | None = None) -> Codec:
    """The codec that the arguments ask for. Raises what ckbd.load does."""
    import ckbd

    options = {"device": args.device, "backend": args.backend, "precision": args.precision}
    if "max_pixels" in args:
        options["max_pixels"] = args.max_pixels
    return ckbd.load(model, **options, **({"threads": args.threads} if team is None else {"team": team}))


@contextmanager
def asked_for(model: str | Path | None) -> Iterator[None]:
    """A model that the command line names, or None, is a matter of usage if it cannot be had: UsageError."""
    try:
        yield
    except BAD_INPUT as error:
        named = "models" if model is None else f"model {model}"
        raise UsageError(f"{named}: {reason_of(error, model)}") from error


def _planned(args: argparse.Namespace, kind: Kind) -> Plan:
    found = plan(args.paths, kind)
    if any(job.target is None for job in found.jobs) and sys.stdout.isatty():
        raise UsageError("standard output is a terminal: redirect it, or give OUT a name")
    if args.skip_existing:
        found.skip_existing()
    return found


def _hidden(args: argparse.Namespace, todo: Plan) -> bool:
    """Whether a picture's rows are not to be shown; of several there is a bar of files."""
    return args.quiet or len(todo.jobs) != 1 or not sys.stderr.isatty()


def _how(args: argparse.Namespace) -> dict[str, Any]:
    return {"force": args.force, "skip": args.skip_existing, "quiet": args.quiet}


def _side_by_side(args: argparse.Namespace, team: Team, device: torch.device) -> Ordered:
    """As map, on a codec's threads: files that are read and written meanwhile cost nothing more."""
    from ckbd.pipeline import flow

    # A GPU has one memory, whatever the number of processors beside it.
    threads = args.jobs or (team.threads if device.type == "cpu" else min(team.threads, GPU_FILES))
    return lambda work, jobs: flow.ordered(work, jobs, team, threads)


def _write(job: Job, write: Callable[[Any], Any]) -> Any:
    """write(file) to a job's output, which appears whole or not at all."""
    from ckbd.codec.files import output

    if job.target is not None:
        job.target.parent.mkdir(parents=True, exist_ok=True)
        with output.writing(job.target) as file:
            return write(file)
    whole = io.BytesIO()
    found = write(whole)
    sys.stdout.buffer.write(whole.getbuffer())
    sys.stdout.buffer.flush()
    return found


def encode(args: argparse.Namespace) -> int:
    from ckbd.codec import image
    from ckbd.shell import quiet

    def pictures(folder: Path, onerror: Callable[[OSError], object]) -> list[Path]:
        return image.find(folder, onerror=onerror)

    todo = _planned(args, Kind(pictures, None, STREAM, (STREAM,), args.keep_suffix))
    if all(job.there for job in todo.jobs) and not args.force:  # nothing to do but to say so
        return run(todo, lambda job: Done("", 0, 0), **_how(args))
    with asked_for(args.model):
        codec = load(args, args.model)

    hidden = _hidden(args, todo)

    def work(job: Job) -> Done:
        seekable = job.source is not None and job.source.is_file()
        file = str(job.source) if seekable else io.BytesIO(job.read())
        picture = image.read(file, args.max_pixels)
        if args.strip:
            picture = image.strip(picture)
        if args.target_bpp is None and args.target_psnr is None:
            quality = args.quality
            with rows(picture.height, hidden=hidden) as tell:
                (stream,) = codec.encode([picture], quality=quality, effort=args.effort, progress=tell)
        else:
            wanted = {"bpp": args.target_bpp, "psnr": args.target_psnr}
            stream, quality, warning = targets.encode(codec, picture, args.effort, **wanted)
            if warning:
                complain(job.name, f"warning: {warning}")
        _write(job, lambda file: file.write(stream))
        pixels = picture.height * picture.width
        line = f"{len(stream)} bytes  {8 * len(stream) / pixels:.4f} bpp  quality {quality:g}"
        return Done(line, len(stream), pixels)

    with quiet.pillow():
        return run(todo, work, **_how(args), ordered=_side_by_side(args, codec.team, codec.device))


def decode(args: argparse.Namespace) -> int:
    if "numpy" not in sys.modules:  # which reads it: products are small here, and threads would spin for each other
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from ckbd.codec import checks, container, image

    suffix = args.format or ".png"
    suffixes = image.SUFFIXES if args.format is None else (suffix,)

    def streams(folder: Path, onerror: Callable[[OSError], object]) -> list[Path]:
        return image.find(folder, (STREAM,), onerror)

    todo = _planned(args, Kind(streams, STREAM, suffix, suffixes))
    if all(job.there for job in todo.jobs) and not args.force:  # nothing to do but to say so
        return run(todo, lambda job: Done("", 0, 0), **_how(args))
    picture_of, ordered = _decoders(args, todo)

    def work(job: Job) -> Done:
        stream = job.read() if job.source is None else checks.read(job.source)
        picture = picture_of(stream)
        if args.strip:
            picture = image.strip(picture)
        format = image.format_of(suffix if job.target is None else job.target.suffix.lower() or ".png")
        left = _write(job, lambda file: image.write_to(file, picture, format))
        line = f"{picture.width}x{picture.height}" + (f"  without {' and '.join(left)}" if left else "")
        height, width = picture.height, picture.width
        if args.region or args.scale < 1:  # bits a pixel are those of all of it
            height, width = container.peek(stream) or (height, width)
        return Done(line, len(stream), width * height)

    return run(todo, work, **_how(args), ordered=ordered)


def _decoders(args: argparse.Namespace, todo: Plan) -> tuple[Callable[[bytes], Picture], Ordered]:
    """What decodes a stream, by the model that it names unless one is given, and how jobs go side by side."""
    from ckbd.codec import container
    from ckbd.codec.view import view
    from ckbd.readers import Readers

    hidden = _hidden(args, todo)
    if _light(args, todo):
        from ckbd.light.decoder import Decoder

        def light(model: str | Path) -> Callable[[bytes], Picture]:
            decode = Decoder(model, args.max_pixels).decode
            asked = view(args.region, args.scale)
            return lambda stream: decode(stream, asked)

        return _reading(Readers(light, args.model), args), map
    from ckbd.codec import machine

    team = machine.Team(machine.threads_of(args.threads))
    try:
        device = machine.device_of(args.device)
    except ValueError as error:
        raise UsageError(str(error)) from error

    def decoder(model: str | Path) -> Callable[[bytes], Picture]:
        codec = load(args, model, team)

        def picture(stream: bytes) -> Picture:
            height, _ = container.peek(stream) or (0, 0)
            with rows(height if args.region is None else args.region[3] - args.region[1], hidden=hidden) as tell:
                options = {"region": args.region, "scale": args.scale, "progress": tell}
                return codec.decode_pictures([stream], **options)[0]

        return picture

    return _reading(Readers(decoder, args.model), args), _side_by_side(args, team, device)


def _reading(readers: Readers[Callable[[bytes], Picture]], args: argparse.Namespace) -> Callable[[bytes], Picture]:
    """A reader of streams; a model that was asked for is loaded now. Raises UsageError."""
    with asked_for(args.model):
        readers.ready()
    return lambda stream: readers.of(stream)(stream)


def _light(args: argparse.Namespace, todo: Plan) -> bool:
    """Whether the decoder without torch is the quicker way, and nothing else is asked for."""
    if (args.device, args.backend) != ("cpu", "auto") or args.precision == "bfloat16" or (args.jobs or 1) > 1:
        return False
    from ckbd.codec import container
    from ckbd.light import choice

    with asked_for(args.model):
        return choice.serves(args.model, (job.head(container.HEAD) for job in todo.jobs))
