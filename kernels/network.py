"""Weights of g_ep as the phase kernels read them: padded, tap-major, K contiguous."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ckbd.kernels.numerics import IntLayer

KERNELS = (3, 5, 7)
BLOCK = 64  # hidden and output widths are padded to multiples of this, and wide inputs ...
NARROW = 32  # ... narrow ones to multiples of this: the least that an int8 tensor-core product takes
FLOATS = (torch.float32, torch.float16)


Layer = tuple[Tensor, Tensor, Tensor]  # weight, bias, shift


def taps(kernel: int) -> tuple[tuple[int, int], ...]:
    """Live taps of a kernel x kernel checkerboard mask in raster order, as (dh, dw): those with dh + dw odd."""
    r = kernel // 2
    return tuple((i // kernel - r, i % kernel - r) for i in range(1, kernel * kernel, 2))


def padded(n: int) -> int:
    """n input channels as the kernels store them."""
    unit = NARROW if n <= NARROW else BLOCK
    return (n + unit - 1) // unit * unit


@dataclass(frozen=True, eq=False)
class Network:
    """g_ep of one model: (W1_psi psi + W1_ctx context), hidden, output, on one device.

    psi: (H1P, C padded) projection of C hyper features, applied once for both phases. first, hidden, output: (weight,
    bias, shift) with weights (H1P, taps CP), (H2P, H1P), (2 MP, H2P), means above table indices; the bias of `first`
    is (2, H1P), one for each phase. Widths ending in P are padded with zeros. Integer mode: int8 weights, int32 bias
    and shift. Float mode: weights float32 or float16, bias float32, shift empty; LeakyReLU slope; thresholds (n,)
    float32: k is how many of them sigma exceeds (None: sigma itself comes out instead of k).
    """

    M: int
    C: int
    H1: int
    H2: int
    kernel: int
    psi: Tensor
    first: Layer
    hidden: Layer
    output: Layer
    slope: float = 0.0
    thresholds: Tensor | None = None

    @property
    def exact(self) -> bool:
        return self.psi.dtype == torch.int8

    @property
    def acc_dtype(self) -> torch.dtype:
        return torch.int32 if self.exact else torch.float32

    @property
    def mean_dtype(self) -> torch.dtype:
        return torch.int16 if self.exact else torch.float32

    @property
    def k_dtype(self) -> torch.dtype:
        return torch.uint8 if self.exact or self.thresholds is not None else torch.float32

    @property
    def tensors(self) -> list[Tensor]:
        """What the phase op takes: weight, bias, shift of each layer."""
        return [*self.first, *self.hidden, *self.output]

    @classmethod
    def integers(
        cls,
        first: IntLayer,
        hidden: IntLayer,
        output: IntLayer,
        *,
        kernel: int = 5,
        device: torch.device | str | None = None,
    ) -> Network:
        """The exact zone's g_ep from proved layers: first (H1, C_psi + taps M) with bias (2, H1), hidden (H2, H1),
        output (2 M, H2); docs/numerics.md, section 4.
        """
        _check_kernel(kernel)
        M, count = output.weight.shape[0] // 2, len(taps(kernel))
        C = first.weight.shape[1] - count * M
        if C < 1 or output.weight.shape[0] % 2:
            raise ValueError(
                f"network: first has {first.weight.shape[1]} inputs, which leaves none for psi "
                f"beside {count} taps of {M} channels"
            )
        w_psi, w_context = first.weight[:, :C], first.weight[:, C:].unflatten(1, (count, M))
        layers = (
            (w_context, first.bias, first.shift),
            (hidden.weight, hidden.bias, hidden.shift),
            (output.weight, output.bias, output.shift),
        )
        return cls._pack(w_psi, layers, kernel, torch.int8, torch.int32, device=device)

    @classmethod
    def floats(
        cls,
        w_psi: Tensor,
        w_context: Tensor,
        first_bias: Tensor,
        hidden: tuple[Tensor, Tensor],
        output: tuple[Tensor, Tensor],
        *,
        slope: float,
        thresholds: Tensor | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> Network:
        """g_ep of a network that was never quantised.

        w_psi (H1, C_psi); w_context (H1, M, kernel, kernel), whose dead taps are ignored (see fold_context);
        first_bias (2, H1), of anchors and of non-anchors; hidden (weight (H2, H1), bias); output (weight (2 M, H2),
        bias), means above scales. slope: of LeakyReLU. thresholds: (n,) rising, n <= 255. dtype: of weights and
        activations, float32 (IEEE, no TF32) or float16; accumulators and biases are float32.
        """
        if dtype not in FLOATS:
            raise ValueError(f"network: expected dtype float32 or float16, got {dtype}")
        kernel = w_context.shape[-1]
        _check_kernel(kernel)
        if thresholds is not None and (thresholds.dim() != 1 or not 1 <= thresholds.numel() <= 255):
            raise ValueError(f"thresholds: expected 1 to 255 in a row, got shape {tuple(thresholds.shape)}")
        live = w_context.flatten(2)[:, :, 1::2].transpose(1, 2)
        none = torch.zeros(0, dtype=torch.float32, device=device)
        layers = (live, first_bias, none), (*hidden, none), (*output, none)
        return cls._pack(w_psi, layers, kernel, dtype, torch.float32, slope, thresholds, device)

    @classmethod
    def _pack(
        cls,
        w_psi: Tensor,
        layers: tuple[Layer, Layer, Layer],
        kernel: int,
        dtype: torch.dtype,
        wide: torch.dtype,
        slope: float = 0.0,
        thresholds: Tensor | None = None,
        device: torch.device | str | None = None,
    ) -> Network:
        (w1, b1, s1), (w2, b2, s2), (w3, b3, s3) = layers
        (H1, _, M), H2, C = w1.shape, w2.shape[0], w_psi.shape[-1]
        if min(M, C, H1, H2) < 1:
            raise ValueError(f"network: expected widths of at least 1, got M {M}, C {C}, H1 {H1}, H2 {H2}")
        for name, got, want in (
            ("psi weight", tuple(w_psi.shape), (H1, C)),
            ("first bias", tuple(b1.shape), (2, H1)),
            ("hidden weight", tuple(w2.shape), (H2, H1)),
            ("hidden bias", tuple(b2.shape), (H2,)),
            ("output weight", tuple(w3.shape), (2 * M, H2)),
            ("output bias", tuple(b3.shape), (2 * M,)),
        ):
            if got != want:
                raise ValueError(f"network: {name}: expected shape {want}, got {got}")
        H1P, H2P, MP = (_up(n, BLOCK) for n in (H1, H2, M))

        def put(t: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
            if not t.numel():
                return t.to(device)
            out = torch.zeros(shape, dtype=dtype, device=device)
            out[tuple(slice(0, n) for n in t.shape)] = t.detach().cpu().to(dtype)
            return out

        def pair(t: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
            return put(t.unflatten(0, (2, M)), (2, MP, *shape), dtype).flatten(0, 1) if t.numel() else t.to(device)

        return cls(
            M=M,
            C=C,
            H1=H1,
            H2=H2,
            kernel=kernel,
            psi=put(w_psi, (H1P, padded(C)), dtype),
            first=(
                put(w1, (H1P, w1.shape[1], padded(M)), dtype).flatten(1),
                put(b1, (2, H1P), wide),
                put(s1, (H1P,), wide),
            ),
            hidden=(put(w2, (H2P, H1P), dtype), put(b2, (H2P,), wide), put(s2, (H2P,), wide)),
            output=(pair(w3, (H2P,), dtype), pair(b3, (), wide), pair(s3, (), wide)),
            slope=float(slope),
            thresholds=None if thresholds is None else thresholds.detach().to(device, torch.float32).contiguous(),
        )


@dataclass(frozen=True, eq=False)
class SubPixel:
    """A 3x3 integer convolution followed by a shuffle to `factor` times the size, as the kernels read it.

    C input and N output channels, the latter after the shuffle. layer: weight int8 (factor^2 N padded, 9 CP),
    tap-major, whose rows come as (a, b, n) for the corner (a, b) that they go to; bias, shift int32 (factor^2 N
    padded,). factor: 2, or 1, with which nothing is shuffled.
    """

    C: int
    N: int
    layer: Layer
    factor: int = 2

    @property
    def width(self) -> int:
        """C as the weights have it, padded."""
        return self.layer[0].shape[1] // 9

    @classmethod
    def pack(cls, conv: IntLayer, device: torch.device | str | None = None, factor: int = 2) -> SubPixel:
        """conv: weight (factor^2 N, C, 3, 3), bias and shift, channels (n, a, b) as in docs/numerics.md."""
        rows, C = conv.weight.shape[:2]
        order = torch.arange(rows, device="cpu").view(-1, factor**2).t().flatten()
        weight = torch.zeros(_up(rows, BLOCK), 9, padded(C), dtype=torch.int8, device=device)
        weight[:rows, :, :C] = conv.weight.detach().cpu()[order].flatten(2).transpose(1, 2).to(torch.int8)

        def put(t: Tensor) -> Tensor:
            vector = torch.zeros(weight.shape[0], dtype=torch.int32, device=device)
            vector[:rows] = t.detach().cpu()[order].to(torch.int32)
            return vector

        return cls(C, rows // factor**2, (weight.flatten(1), put(conv.bias), put(conv.shift)), factor)


def fold_context(w_first: Tensor, w_conv: Tensor, b_conv: Tensor) -> tuple[Tensor, Tensor]:
    """The context convolution folded into the first 1x1 layer, there being no non-linearity between them.

    w_first (H1, C) are the first layer's columns for the convolution's C outputs; w_conv (C, M, kernel, kernel),
    b_conv (C,). Returns (w_context (H1, M, kernel, kernel), bias (H1,)), in float64.
    """
    w = w_first.double().flatten(1)
    return torch.einsum("nc,cmuv->nmuv", w, w_conv.double()), w @ b_conv.double()


def _check_kernel(kernel: int) -> None:
    if kernel not in KERNELS:
        raise ValueError(f"network: expected a context kernel of 3, 5 or 7, got {kernel}")


def _up(n: int, unit: int) -> int:
    return (n + unit - 1) // unit * unit
