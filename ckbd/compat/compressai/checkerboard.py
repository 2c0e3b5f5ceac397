"""CompressAI's checkerboard codec without the work that changes nothing: parameters="stock".

Left out: the context convolution of the anchors, whose result CompressAI overwrites with zeros, and on CPUs the half
of the non-anchors' convolution that falls on anchors and is thrown away. What is left is the same operations of
PyTorch on the same values, so the bytes are CompressAI's. The second is not a matter of course, since a convolution
may add in another order when its shape is another: see `HalfContext`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from compressai.layers import CheckerboardMaskedConv2d
from torch import Tensor

from ckbd.compat.compressai.plain import Host, compress_y, decompress_y


class StockCheckerboard:
    """Goes before CheckerboardLatentCodec, or a class derived from it, among the bases of a codec's class."""

    # What a derived class may not override, because this one stands in for it.
    REPLACED: tuple[str, ...] = ("compress", "decompress", "_y_ctx_zero", "embed", "unembed")

    @staticmethod
    def check(codec: Host) -> None:
        """Any codec can have it."""

    @torch.no_grad()
    def _y_ctx_zero(self: Host, y: Tensor) -> Tensor:
        conv = self.context_prediction
        if not (is_checkerboard(conv) and y.is_contiguous() and conv.weight.is_contiguous()):
            # The codec's own, whose memory format follows from the convolution.
            return super()._y_ctx_zero(y)  # type: ignore[misc]  # of the class that this one goes before
        return y.new_zeros((y.shape[0], conv.out_channels, *y.shape[2:]))

    def compress(self: Host, y: Tensor, side_params: Tensor) -> dict:
        n, c, h, w = y.shape
        _check_width(w)
        y_hat_ = side_params.new_zeros((2, n, c, h, w // 2))
        side_params_, y_ = self.unembed(side_params), self.unembed(y)
        strings = []
        for i in range(2):
            params_i = self._params(y_hat_, side_params_, i)
            y_out = compress_y(self.latent_codec["y"], y_[i], params_i)
            y_hat_[i] = y_out["y_hat"]
            (string,) = y_out["strings"]
            strings.append(string)
        y_hat = self.embed(y_hat_)
        return {"strings": strings, "shape": y_hat.shape[1:], "y_hat": y_hat}

    def decompress(
        self: Host, strings: list[list[bytes]], shape: tuple[int, ...], side_params: Tensor, **kwargs: object
    ) -> dict:
        n = check_strings(strings)
        c, h, w = shape
        _check_width(w)
        y_hat_ = side_params.new_zeros((2, n, c, h, w // 2))
        side_params_ = self.unembed(side_params)
        for i in range(2):
            params_i = self._params(y_hat_, side_params_, i)
            y_hat_[i] = decompress_y(self.latent_codec["y"], [strings[i]], (h, w // 2), params_i)["y_hat"]
        return {"y_hat": self.embed(y_hat_)}

    def _params(self: Host, y_hat_: Tensor, side_params_: Tensor, i: int) -> Tensor:
        """Entropy parameters (n, 2 c, h, w / 2) of phase i; y_hat_ (2, n, c, h, w / 2) as far as it is known."""
        conv = self.context_prediction
        _, n, _, h, half = y_hat_.shape
        if i == 1:
            y_ctx = _half_context(self, y_hat_)
        elif is_checkerboard(conv):
            y_ctx = y_hat_.new_zeros((n, conv.out_channels, h, half))
        else:
            y_ctx = torch.zeros_like(dense_context(self, y_hat_)[0])
        return self.entropy_parameters(self.merge(y_ctx, side_params_[i]))


def is_checkerboard(conv: Host) -> bool:
    """Whether a context convolution is CompressAI's own, keeps height and width, and has nothing unusual."""
    return (
        type(conv) is CheckerboardMaskedConv2d
        and conv.stride == conv.dilation == (1, 1)
        and conv.groups == 1
        and conv.padding_mode == "zeros"
        and conv.padding == tuple(k // 2 for k in conv.kernel_size)
        and all(k % 2 for k in conv.kernel_size)
    )


def _check_width(w: int) -> None:
    """Other odd widths raise in unembed, as in CompressAI, whose coder crashes on the empty planes of this one."""
    if w == 1:
        raise ValueError("y: a latent of width 1 has no checkerboard in CompressAI's layout; 'fused' takes it")


def check_strings(strings: list[list[bytes]]) -> int:
    """The batch size of two lists of strings, anchors' and non-anchors'; AssertionError as in CompressAI."""
    n = len(strings[0])
    assert len(strings) == 2
    assert all(len(x) == n for x in strings)
    return n


def dense_context(codec: Host, y_hat_: Tensor) -> Tensor:
    """Context (2, n, C, h, w / 2) of both phases as CompressAI has it, by a convolution over the whole lattice."""
    return codec.unembed(codec.context_prediction(codec.embed(y_hat_)))


class HalfContext:
    """The non-anchors' context by two convolutions of stride 2, where that is known to give the same bits.

    Non-anchors of even rows lie in every second column, those of odd rows in the others. PyTorch's CPU convolution
    takes the channels and taps of an output one after the other, whatever its neighbours, so each output comes out
    the same; but nothing promises it. Hence a shape goes the dense way twice, and at the second time the other way
    as well: if one bit of all outputs differs, it stays with the dense way. A shape is that of the input and of the
    weights, the number of threads and the parity.
    """

    LIMIT = 1024  # shapes remembered
    SEEN, EQUAL, DIFFERENT = range(3)

    def __init__(self) -> None:
        self._known: dict[tuple, int] = {}

    def __call__(self, codec: Host, y_hat_: Tensor) -> Tensor:
        """(n, C, h, w / 2) of y_hat_ (2, n, c, h, w / 2), of which the non-anchors are zero."""
        conv = codec.context_prediction
        if not self._applies(conv, y_hat_):
            return dense_context(codec, y_hat_)[1]
        key = (*y_hat_.shape[1:], *conv.weight.shape, torch.get_num_threads(), codec.anchor_parity)
        known = self._known.get(key)
        if known == self.EQUAL:
            return self._strided(codec, y_hat_)
        dense = dense_context(codec, y_hat_)[1]
        if known is None:
            if len(self._known) >= self.LIMIT:
                self._known.clear()
            self._known[key] = self.SEEN
        elif known == self.SEEN:
            same = torch.equal(dense.view(torch.int32), self._strided(codec, y_hat_).view(torch.int32))
            self._known[key] = self.EQUAL if same else self.DIFFERENT
        return dense

    @staticmethod
    def _applies(conv: Host, y_hat_: Tensor) -> bool:
        return (
            is_checkerboard(conv)
            and y_hat_.device.type == "cpu"
            and y_hat_.dtype == conv.weight.dtype == torch.float32
            and y_hat_.shape[3] >= 2
            and conv.weight.is_contiguous()
            and not torch.is_autocast_enabled("cpu")
            and not (torch.is_grad_enabled() and (y_hat_.requires_grad or conv.weight.requires_grad))
        )

    @staticmethod
    def _strided(codec: Host, y_hat_: Tensor) -> Tensor:
        conv = codec.context_prediction
        conv.weight.data = conv.weight.data * conv.mask  # as its forward does
        ph, pw = conv.padding
        padded = F.pad(codec.embed(y_hat_), (pw, pw, ph, ph))
        out = y_hat_.new_empty((y_hat_.shape[1], conv.out_channels, *y_hat_.shape[3:]))
        for row in range(2):
            column = (row + (codec.anchor_parity == "even")) % 2
            out[:, :, row::2] = F.conv2d(padded[:, :, row:, column:], conv.weight, conv.bias, stride=2)
        return out


_half_context = HalfContext()
