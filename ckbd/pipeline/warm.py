"""Everything that a first decode would wait for, ahead of time: kernels compiled and measured, libraries begun."""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch

from ckbd.codec import batches
from ckbd.codec.container import Header
from ckbd.codec.decoder import Decoder
from ckbd.codec.networks.rendering import Renderer
from ckbd.kernels.transforms import Pictures

MOST = 1 << 15  # patches of the largest batch: what 256 pictures of 1024x2048 have


def warm_up(decoder: Decoder, renderers: list[Renderer], most: int = MOST) -> Iterator[tuple[int, float]]:
    """(pixels, seconds) of each size, doubling from a patch to `most`, or to what the device has memory for.

    renderers: g_s as layers, each as it may run; of a decoder with a painter that runs instead.

    Kernels' choices are shared by all sizes up to the next power of two, whatever pictures they are made of.
    """
    patches = 1
    while patches <= most:
        start = time.perf_counter()
        across = 1 << (patches.bit_length() // 2)
        try:
            _run(decoder, renderers, (patches // across or 1, min(across, patches)))
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            return
        yield patches * batches.PATCH**2, time.perf_counter() - start
        patches *= 2


@torch.inference_mode()
def _run(decoder: Decoder, renderers: list[Renderer], size: tuple[int, int]) -> None:
    """A picture of nothing through the networks; size in patches."""
    device, c = decoder.device, decoder.model.config
    sites = size[0] * size[1]
    z = torch.zeros((sites, c.Nz), dtype=torch.int16, device=device)
    state = decoder.zone.begin_rows(z, torch.full((sites,), 50, dtype=torch.int16, device=device), (size,))
    for p in range(decoder.zone.phases):
        k = decoder.zone.phase(state, p)
        decoder.zone.assemble(state, p, torch.zeros(k.numel(), dtype=torch.int16, device=device))
    height, width = size[0] * batches.PATCH, size[1] * batches.PATCH
    if decoder.painter is not None:
        for layout, shape in (("CHW", (3, height, width)), ("HWC", (height, width, 3))):
            pixels = torch.empty(shape, dtype=torch.uint8, device=device)
            decoder.painter.paint(state, Pictures.of([pixels], layout))
    else:
        (y_hat,) = decoder.zone.latents(state)
        for renderer in renderers:
            for _ in renderer.g_s(y_hat, [Header(b"", 100, width, height)]):
                pass
    if device.type == "cuda":
        torch.cuda.synchronize(device)
