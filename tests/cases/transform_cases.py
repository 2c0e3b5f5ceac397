"""Inputs for the tests of g_a and g_s in kernels: networks of any widths, latents, pictures among poison."""

from __future__ import annotations

import torch
from torch import Tensor

from ckbd.kernels import Lattice, transforms
from ckbd.kernels.transforms import QUALITIES, Pictures
from ckbd.model.transforms import Analysis, Synthesis

POISON = 171
MARGIN = 37
LAYOUTS = ("CHW", "HWC")
# (M, features): no multiple of anything, narrower than a tile, what "held" takes.
WIDTHS = ((16, 66), (9, 65), (128, 128), (256, 128), (40, 100))
# Pictures, (height, width), and the latents that they lie in: some with room to spare, one site, odd sides.
SIZES = ((70, 130), (1, 1), (64, 64), (16, 90), (45, 60))
LATENTS = ((5, 9), (1, 1), (4, 4), (1, 7), (3, 4))


def spread(network: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Weights that start as they do, moved so far that every one of them matters."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in network.parameters():
            p.add_(torch.randn(p.shape, generator=g) * 0.3 * max(p[0].numel(), 8) ** -0.5)
    return network.eval()


def g_s(M: int, width: int, blocks: int = 1, seed: int = 0) -> Synthesis:
    torch.manual_seed(seed)
    return spread(Synthesis(width, M, blocks, blocks), seed)


def g_a(M: int, width: int, blocks: int = 1, seed: int = 0) -> Analysis:
    torch.manual_seed(seed)
    return spread(Analysis(width, M, blocks, blocks), seed)


def gains(M: int) -> Tensor:
    return 0.2 + 0.4 * torch.rand(QUALITIES, M, generator=torch.Generator().manual_seed(M))


def synthesis(M: int, width: int, dtype: torch.dtype, blocks: int = 1, device: str = "cpu") -> transforms.Synthesis:
    return transforms.Synthesis.pack(g_s(M, width, blocks).state_dict(), gains(M), dtype, device)


def analysis(M: int, width: int, dtype: torch.dtype, blocks: int = 1, device: str = "cpu") -> transforms.Analysis:
    return transforms.Analysis.pack(g_a(M, width, blocks).state_dict(), dtype, device)


def halves(lattice: Lattice, M: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """r and mean of both phases, int16 (2, sites, M); blanks hold what must not be read."""
    g = torch.Generator().manual_seed(seed)
    r = torch.randint(-3, 4, (2, lattice.sites, M), generator=g)
    mean = torch.randint(-24, 25, (2, lattice.sites, M), generator=g)
    return r.to(torch.int16), mean.to(torch.int16)


def features(rows: int, channels: int, padded: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    """(rows, padded), zero beyond the channels."""
    x = torch.zeros(rows, padded)
    x[:, :channels] = torch.randn(rows, channels, generator=torch.Generator().manual_seed(seed))
    return x.to(dtype)


class Album:
    """Pictures of these sizes among poison, back to back with margins: what is written beside them shows."""

    def __init__(
        self,
        sizes=SIZES,
        layout: str = "CHW",
        dtype: torch.dtype = torch.uint8,
        device: str = "cpu",
        margin: int = MARGIN,
    ):
        counts = [3 * h * w for h, w in sizes]
        self.whole = torch.full((sum(counts) + margin * (len(sizes) + 1),), POISON, dtype=dtype, device=device)
        self.inside = torch.zeros(self.whole.shape, dtype=torch.bool)
        tensors, at = [], margin
        for (h, w), n in zip(sizes, counts, strict=True):
            shape = (3, h, w) if layout == "CHW" else (h, w, 3)
            tensors.append(self.whole[at : at + n].view(shape))
            self.inside[at : at + n] = True
            at += n + margin
        gray, quality2 = [n % 3 == 1 for n in range(len(sizes))], [2 + 31 * n % QUALITIES for n in range(len(sizes))]
        self.pictures = Pictures.of(tensors, layout, gray=gray, quality2=quality2)

    def untouched(self) -> bool:
        return bool((self.whole.cpu()[~self.inside] == POISON).all())


def random_pictures(sizes=SIZES, layout: str = "CHW", device: str = "cpu") -> Pictures:
    g = torch.Generator().manual_seed(5)
    shapes = [(3, h, w) if layout == "CHW" else (h, w, 3) for h, w in sizes]
    return Pictures.of([torch.randint(0, 256, s, generator=g, dtype=torch.uint8).to(device) for s in shapes], layout)
