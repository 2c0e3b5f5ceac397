"""What a day does, most valuable first: each step a command in a process of its own, and what is read of it after.

Estimates are guesses until a step has been run; gpu.json's seconds then take their place. No torch here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.gpu import record
from bench.gpu.day import read
from bench.gpu.day.read import Result

PHASES = ("kernels/*.py",)
KERNELS = (*PHASES, "kernels/transforms/*.py")
CODEC = (*KERNELS, "ckbd/*.py", "ckbd/codec/**/*.py", "ckbd/pipeline/*.py", "ckbd/model/*.py", "csrc/*/*.*")
TRAINING = (
    "ckbd/training/*.py",
    "ckbd/model/*.py",
    *(f"kernels/{n}.py" for n in ("numerics", "reference", "products")),
)
G_S_BARS, PHASE_BARS = read.bar_names(read.PAINTER), read.bar_names(read.PHASE)
VALIDATION = 120.0  # seconds of a training step that are no training: reading pictures, fitting tables, validating
LEAST_TRAINING = 120.0  # seconds below which training is not begun, compiling included


@dataclass(frozen=True)
class Options:
    """What a day was asked for besides its minutes. train: a model by name or file, or a checkpoint.pt. data,
    val: folders or tar files of pictures.
    """

    images: tuple[str, ...] = ()
    train: str | None = None
    data: tuple[str, ...] = ()
    val: tuple[str, ...] = ()
    train_args: str = ""


@dataclass(frozen=True)
class Job:
    """device: "cuda", or "cpu" in a rehearsal. folder: where the program writes, the step's alone. seconds: what it
    may take.
    """

    device: str
    folder: Path
    seconds: float
    options: Options

    @property
    def rehearsal(self) -> bool:
        return self.device == "cpu"


@dataclass(frozen=True)
class Step:
    """estimate, limit: seconds it is thought to take, and after which it is stopped. sources: patterns of the files
    that its result rests on; a step without is never done for good. timed: its result is of one kind of GPU. bars:
    entries that it makes besides. why_not: the reason not to run it, if there is one. greedy: takes all that is left.
    optional: wants more than a GPU, so that a machine without that may skip it.
    """

    name: str
    title: str
    estimate: float
    limit: float
    command: Callable[[Job], list[str]]
    read: Callable[[Path], Result]
    sources: tuple[str, ...] = ()
    timed: bool = False
    bars: tuple[str, ...] = ()
    greedy: bool = False
    optional: bool = False
    why_not: Callable[[Options, str], str | None] = lambda options, device: None

    def entry(self, device: str) -> str:
        """The name of its entry in gpu.json, for a device."""
        return record.per_device(self.name, device) if self.timed else self.name

    def entries(self, devices: Sequence[str]) -> list[str]:
        """Those that are wanted."""
        return list(dict.fromkeys(self.entry(d) for d in devices)) if self.sources else []


def python(*args: object) -> list[str]:
    return [sys.executable, *map(str, args)]


def case(name: str, job: Job, *args: object) -> list[str]:
    """A case of bench.run."""
    common = ("--device", job.device, "--json", job.folder / "rows.json")
    return python("-m", "bench.run", name, *common, *args)


def images(job: Job) -> list[str]:
    return ["--images", *job.options.images] if job.options.images else []


def build(job: Job) -> list[str]:
    return python("setup.py", "-q", "build_ext", "--inplace")


def gpu_test(job: Job) -> list[str]:
    return python("-m", "bench.gpu.test", "--only", "tests", *tested(job))


def tested(job: Job) -> tuple[object, ...]:
    return "--device", job.device, "--outcomes", job.folder / "outcomes.txt"


def sanitizer(tool: str) -> Callable[[Job], list[str]]:
    return lambda job: python("-m", "bench.gpu.test", "--only", tool, *tested(job))


def decode(job: Job) -> list[str]:
    toy = ("--batches", 1, 2, "--pictures", "128x64", "--quick") if job.rehearsal else ("--runs", 10)
    return case("batch", job, *images(job), *toy)


def kernels(job: Job, part: str = "phases") -> list[str]:
    toy = ("--pictures", "64x64", "--batches", 1, "--quick", "--no-compile")
    real = ("--pictures", "768x512", "--batches", 64, 1, "--no-cold", "--runs", 20)
    return case("kernels", job, "--only", part, *(toy if job.rehearsal else real))


def transforms(job: Job) -> list[str]:
    return kernels(job, "transforms")


def compressai(job: Job) -> list[str]:
    toy = ("--pictures", "128x128", "--batches", 1, "--runs", 1, "--stock-runs", 1)
    real = ("--batches", 1, 16, "--runs", 5)
    models = ("--compressai-models", "cheng2020-anchor-checkerboard")
    return case("compressai", job, *models, *images(job), *(toy if job.rehearsal else real))


def profile(job: Job) -> list[str]:
    toy = ("--batch", 1, "--picture", "64x64") if job.rehearsal else ()
    return python("-m", "bench.gpu.profile", "--device", job.device, "--out", job.folder, *toy)


def trace(job: Job) -> list[str]:
    more = ("--batch", 2, "--picture", "128x64") if job.rehearsal else ("--backend", "triton")
    return python("-m", "bench.gpu.trace", "--device", job.device, "--out", job.folder, *images(job), *more)


def warm(job: Job) -> list[str]:
    real = () if job.rehearsal else ("--backend", "triton")
    return python("-m", "bench.gpu.warm", "--device", job.device, "--out", job.folder, *real)


def pace(job: Job) -> list[str]:
    # The last batch takes time too.
    more = ("--rehearse",) if job.rehearsal else ("--seconds", f"{job.seconds / 2:g}")
    return python("-m", "bench.gpu.pace", "--device", job.device, "--out", job.folder, *more)


def train(job: Job) -> list[str]:
    if job.rehearsal:
        return python("-m", "bench.gpu.training", "--out", job.folder, "--rehearse")
    o = job.options
    minutes = (job.seconds - VALIDATION) / 60
    args = ["--data", *o.data, "--val", *o.val, "--init", o.train, "--minutes", f"{minutes:.3f}"]
    more = [f"--train-args={o.train_args}"] if o.train_args else []
    return python("-m", "bench.gpu.training", "--out", job.folder, *args, *more)


def no_training(options: Options, device: str) -> str | None:
    if device == "cpu":
        return None
    if options.train is None:
        return "not asked for (--train)"
    if not options.data or not options.val:
        return "needs --data and --val"
    return None


STEPS = (
    Step("build", "The extension, built in place", 60, 240, build, read.build),
    Step(
        "gpu-test",
        "Tests that need a GPU",
        240,
        400,
        gpu_test,
        read.tests,
        (*CODEC, "tests/gpu/*", "ckbd/training/*.py"),
    ),
    Step("decode", "Whole pictures, decoded", 75, 150, decode, read.decode, CODEC, timed=True),
    Step("warm-up", "The first decode on a fresh machine", 70, 180, warm, read.warm, CODEC, timed=True),
    Step("transforms", "g_s and g_a", 110, 240, transforms, read.kernels, KERNELS, True, G_S_BARS),
    Step("kernels", "The phase kernels", 200, 300, kernels, read.kernels, PHASES, True, PHASE_BARS),
    Step(
        "compressai",
        "CompressAI's models on ckbd's entropy path",
        45,
        120,
        compressai,
        read.compressai,
        (*PHASES, "ckbd/compat/compressai/*.py", "csrc/ans/*.*", "csrc/common/*.*"),
        timed=True,
        optional=True,
    ),
    Step(
        "sanitizer memcheck",
        "compute-sanitizer, memcheck",
        60,
        120,
        sanitizer("memcheck"),
        read.tests,
        KERNELS,
        optional=True,
    ),
    Step(
        "sanitizer racecheck",
        "compute-sanitizer, racecheck",
        60,
        120,
        sanitizer("racecheck"),
        read.tests,
        KERNELS,
        optional=True,
    ),
    Step("profile", "One phase, kernel by kernel", 40, 90, profile, read.profile, PHASES, timed=True),
    Step("trace", "Where the time of a batch of 64 goes", 30, 75, trace, read.trace, CODEC, timed=True),
    Step("pace", "A step of training", 120, 300, pace, read.pace, TRAINING, timed=True),
    Step(
        "train",
        "Training with what is left",
        LEAST_TRAINING + VALIDATION,
        3600,
        train,
        read.train,
        greedy=True,
        why_not=no_training,
    ),
)
