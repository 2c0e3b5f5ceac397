"""Small models and pictures that the tests share; every random number comes from a seed."""

import dataclasses
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import ckbd
from ckbd.codec import zone
from ckbd.codec.decoder import Decoder
from ckbd.kernels import ops
from ckbd.model import file as modelfile
from ckbd.model.config import Config
from ckbd.model.model import Checkerboard

if os.environ.get("TRITON_INTERPRET") == "1":
    # Triton's interpreter takes products of any size; here only those that an NVIDIA GPU takes.
    from triton.backends.compiler import GPUTarget
    from triton.backends.nvidia.compiler import min_dot_size
    from triton.runtime.interpreter import interpreter_builder

    interpreter_builder.codegen_fns["min_dot_size"] = min_dot_size(GPUTarget("cuda", 90, 32))

TINY = Config(
    width=66,
    M=16,
    Nz=6,
    hyper=16,
    h_s=8,
    psi=32,
    H1=64,
    H2=32,
    analysis8=1,
    analysis16=1,
    synthesis8=1,
    synthesis16=1,
    levels=3,
)


GROUPED = dataclasses.replace(TINY, M=40, groups=(8, 8, 24), channel=24)


def tiny_model(seed: int = 0, config: Config = TINY) -> Checkerboard:
    """An untrained model whose weights are spread out enough to use narrow, wide and skipped classes."""
    torch.manual_seed(seed)
    model = Checkerboard(config)
    zone, groups = model.exact, config.groups or (config.M,)
    with torch.no_grad():
        for prefix, M in zip([f"group_{g}_" for g in range(len(config.groups))] or [""], groups, strict=True):
            output = getattr(zone, f"{prefix}output")
            output.weight[M:] *= 6
            output.bias[M:] += torch.randn(M) * 1.5
            getattr(zone, f"{prefix}first").bias.normal_(0, 0.5)
        others = [layer for name, layer in zone.named_children() if not name.endswith(("first", "output"))]
        for layer in others:
            layer.bias.normal_(0, 0.3)
    return model


def textured(height: int, width: int, seed: int = 0) -> np.ndarray:
    """uint8 (height, width, 3): smooth shapes, edges and noise, so that no latent is trivial."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    planes = [np.sin(x / rng.uniform(4, 30) + rng.uniform(0, 6)) * np.cos(y / rng.uniform(4, 30)) for _ in range(3)]
    picture = 128 + 80 * np.stack(planes, -1) + 60 * ((x + 2 * y) // 23 % 2)[..., None]
    return np.clip(picture + rng.normal(0, 12, picture.shape), 0, 255).astype(np.uint8)


def turned(crop: np.ndarray) -> set[bytes]:
    """The bytes of a crop, turned and flipped every way."""
    flips = (crop, crop[::-1])
    return {np.ascontiguousarray(np.rot90(one, n)).tobytes() for one in flips for n in range(4)}


@pytest.fixture(scope="module")
def one_thread():
    """PyTorch on one thread: tensors of a few sites are not worth waking a second."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def eight_bits(monkeypatch):
    """Products of uint8 and int8, by PyTorch's integers where it takes no uint8: before pytorch#168226, late 2025."""
    try:
        torch._int_mm(torch.zeros(32, 8, dtype=torch.uint8), torch.zeros(8, 8, dtype=torch.int8))
    except RuntimeError:  # a wrong product is none of these: it fails where it is asked for

        def plain(x, weight, out=None):
            made = x.int() @ weight.int()
            return made if out is None else out.copy_(made)

        monkeypatch.setattr(torch, "_int_mm", plain)


@pytest.fixture
def with_triton(monkeypatch):
    """As where Triton is installed, for what is said before it would be imported."""
    monkeypatch.setattr(ops, "importlib", SimpleNamespace(util=SimpleNamespace(find_spec=lambda name: name)))
    ops._refusal.cache_clear()
    yield
    ops._refusal.cache_clear()


@pytest.fixture(scope="session")
def tiny_path(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny.safetensors"
    modelfile.save(tiny_model(), path)
    return path


@pytest.fixture(scope="session")
def tiny(tiny_path) -> ckbd.Codec:
    return ckbd.load(tiny_path)


@pytest.fixture
def workshop(tmp_path, monkeypatch, tiny_path):
    """A folder to work in; `one` and `two` are tiny models by name."""
    models = tmp_path / "models"
    models.mkdir()
    shutil.copy(tiny_path, models / "one.safetensors")
    modelfile.save(tiny_model(1), models / "two.safetensors")
    monkeypatch.setenv("CKBD_MODELS", str(models))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


@pytest.fixture(scope="session")
def small_env() -> dict[str, str]:
    """Environment for child processes: one thread, no colour."""
    return os.environ | {"OMP_NUM_THREADS": "1", "NO_COLOR": "1"}


# Streams of many sizes, and the ways to decode them at once

SIZES = [(64, 64), (1, 1), (200, 170), (60, 64), (64, 50), (90, 300), (130, 65), (64, 64), (2, 129), (1, 700)]


@pytest.fixture(scope="module")
def streams(tiny):
    """A stream of each size, one of them of a picture without colour."""
    pictures = [textured(h, w, i) for i, (h, w) in enumerate(SIZES)]
    pictures[3] = pictures[3][..., 0]
    return tiny.encode(pictures, [10 * (i + 1) for i in range(len(SIZES))])


@pytest.fixture(scope="module")
def want(tiny, streams):
    """uint8 (H, W, 3) of each."""
    return [torch.from_numpy(tiny.decode_pictures([s])[0].rgb) for s in streams]


@pytest.fixture(scope="module")
def flat(tiny):
    """The same codec as a GPU's runs: all sizes in one batch, through the kernels' twins."""
    d = tiny.decoder
    exact = zone.Kernels(d.model.layers, d.device, backend="torch")
    options = {"device": d.device, "team": d.team, "max_pixels": d.max_pixels, "products": d.renderer.products}
    made = Decoder(d.model, exact, d.tables, **options)
    return ckbd.Codec(tiny.encoder, made, d.team, d.device)


@pytest.fixture(params=["tiny", "flat"])
def codec(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def ordered_dot(monkeypatch):
    """The interpreter's product is BLAS's, whose order of summation nobody promises; one that adds k by k, as a
    chain of multiply-adds does, shows whether the kernels keep to one order.
    """
    from ordered import in_order
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    def dot(self, a, b, d, *rest):
        return TensorHandle(in_order(a.data, b.data.T, d.data.copy()), d.dtype.scalar)

    monkeypatch.setattr(InterpreterBuilder, "create_dot", dot)
