"""CompressAI's entropy models on arrays: what install() puts in the place of their methods.

Same signatures, results, dtypes, strides and error messages as the methods replaced (CompressAI 1.2.6 to 1.2.8,
compressai/entropy_models), and the same bytes. What differs is the way: tables are converted once and kept while
their values stay the same, symbols and indexes never become lists, the images of a batch are coded on as many threads
as torch uses. What goes beyond the common case (another coder by name, tables that are not int32, symbols that are
not integers) goes to the method replaced.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from compressai.entropy_models import EntropyModel, GaussianConditional, GaussianMixtureConditional
from compressai.entropy_models import entropy_models as stock
from compressai.entropy_models.entropy_models_vbr import EntropyModelVbr
from torch import Tensor

from ckbd import _ans

Methods = dict[tuple[type, str], Callable[..., Any]]
Host = Any  # an entropy model of CompressAI's: no checker knows its attributes
Strings = list[bytes]

# The methods replaced, as CompressAI has them, whatever install() has done since.
ORIGINAL: Methods = {
    (EntropyModel, "compress"): EntropyModel.compress,
    (EntropyModel, "decompress"): EntropyModel.decompress,
    (EntropyModelVbr, "compress"): EntropyModelVbr.compress,
    (EntropyModelVbr, "decompress"): EntropyModelVbr.decompress,
    (GaussianConditional, "build_indexes"): GaussianConditional.build_indexes,
    (GaussianMixtureConditional, "compress"): GaussianMixtureConditional.compress,
    (GaussianMixtureConditional, "decompress"): GaussianMixtureConditional.decompress,
}

_tables: weakref.WeakKeyDictionary[torch.nn.Module, _ans.Tables] = weakref.WeakKeyDictionary()


def tables_of(model: EntropyModel) -> _ans.Tables:
    """The tables of an entropy model, converted; made anew when one of their values is another than before."""
    arrays = [
        t.detach().to("cpu", torch.int32).contiguous()
        for t in (model._quantized_cdf, model._cdf_length.reshape(-1), model._offset.reshape(-1))
    ]
    kept = _tables.get(model)
    if kept is None or not kept.matches(*arrays):
        kept = _tables[model] = _ans.Tables(*arrays)
    return kept


def takes_rows(model: torch.nn.Module) -> bool:
    """Whether an entropy model has CompressAI's rANS coder."""
    coder = getattr(model, "entropy_coder", None)
    return isinstance(coder, stock._EntropyCoder) and coder.name == "ans"


def takes(model: EntropyModel) -> bool:
    """Whether it has that coder, and tables that it would accept."""
    return takes_rows(model) and model._quantized_cdf.dtype == torch.int32


def rows(t: Tensor) -> Tensor:
    """(B, ...) of floats or integers as contiguous float32 or int32 (B, n) on the CPU, in the logical order."""
    dtype = torch.float32 if t.is_floating_point() else torch.int32
    return t.detach().to("cpu", dtype).reshape(t.shape[0], -1).contiguous()


def encode(tables: _ans.Tables, symbols: Tensor, indexes: Tensor) -> list[bytes]:
    """A stream for each image: symbols and indexes integers (B, ...), on any device."""
    if not symbols.shape[0]:
        return []
    return _ans.encode_batch(tables, rows(symbols), rows(indexes), threads=torch.get_num_threads())


def decode(tables: _ans.Tables, strings: list[bytes], indexes: Tensor, device: torch.device) -> Tensor:
    """int32 symbols of the shape of indexes (B, ...), contiguous, on device."""
    out = torch.empty(indexes.shape, dtype=torch.int32)
    if len(strings):
        flat = out.view(len(strings), -1)
        _ans.decode_batch(tables, streams_of(strings), rows(indexes), flat, threads=torch.get_num_threads())
    return out.to(device)


def streams_of(strings: list[Any]) -> list[bytes | bytearray]:
    return [stream_of(f"strings[{i}]", string) for i, string in enumerate(strings)]


def stream_of(name: str, string: Any) -> bytes | bytearray:
    """A string as CompressAI's coder takes it: text stands for its UTF-8."""
    if isinstance(string, str):
        return string.encode()
    if not isinstance(string, (bytes, bytearray)):
        raise TypeError(f"{name}: expected bytes, got {type(string).__name__}")
    return string


def symbols_of(model: EntropyModel, inputs: Tensor, means: Tensor | None) -> Tensor:
    """model.quantize(inputs, "symbols", means), in one pass where that is a subtraction and a rounding of floats."""
    if not rounds(model, inputs, means):
        return model.quantize(inputs, "symbols", means)
    out = torch.empty(inputs.shape, dtype=torch.int32)
    _ans.symbols_of(_flat(inputs), None if means is None else _flat(means), out.view(-1))
    return out


def rounds(model: EntropyModel, inputs: Tensor, means: Tensor | None) -> bool:
    """Whether model.quantize(inputs, "symbols", means) rounds the difference of floats of one shape on the CPU."""
    return (
        type(model).quantize in (EntropyModel.quantize, EntropyModelVbr.quantize)
        and _plain(inputs)
        and (means is None or (_plain(means) and means.shape == inputs.shape))
    )


def _plain(t: Tensor) -> bool:
    return t.dtype == torch.float32 and t.device.type == "cpu"


def _flat(t: Tensor) -> Tensor:
    return t.detach().reshape(-1).contiguous()


def encode_latents(model: EntropyModel, inputs: Tensor, indexes: Tensor, means: Tensor | None) -> list[bytes]:
    """encode() of symbols_of(model, inputs, means)."""
    if not rounds(model, inputs, means):
        symbols = model.quantize(inputs, "symbols", means)
        check_inputs(model, inputs, indexes)
        return encode(tables_of(model), symbols, indexes)
    check_inputs(model, inputs, indexes)
    tables = tables_of(model)
    if not inputs.shape[0]:
        return []
    threads = torch.get_num_threads()
    return _ans.encode_latents(
        tables, rows(inputs), None if means is None else rows(means), rows(indexes), threads=threads
    )


def decode_latents(
    model: EntropyModel, strings: list[bytes], indexes: Tensor, means: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """model.dequantize(decode(...), means, dtype), in one pass where that is a conversion and a sum of floats."""
    tables, device = tables_of(model), model._quantized_cdf.device
    plain = (
        model.dequantize in (EntropyModel.dequantize, EntropyModelVbr.dequantize)
        and device.type == "cpu"
        and (dtype == torch.float32 if means is None else _plain(means) and means.shape == indexes.shape)
        and not (torch.is_grad_enabled() and means is not None and means.requires_grad)
    )
    if not plain or not len(strings):
        return model.dequantize(decode(tables, strings, indexes, device), means, dtype)
    out = torch.empty(indexes.shape)
    means = None if means is None else rows(means)
    threads = torch.get_num_threads()
    _ans.decode_latents(
        tables, streams_of(strings), rows(indexes), means, out.view(len(strings), -1), threads=threads
    )
    return out


def check_inputs(model: EntropyModel, inputs: Tensor, indexes: Tensor) -> None:
    if len(inputs.size()) < 2:
        raise ValueError("Invalid `inputs` size. Expected a tensor with at least 2 dimensions.")
    if inputs.size() != indexes.size():
        raise ValueError("`inputs` and `indexes` should have the same size.")
    check_tables(model)


def _check_strings(model: EntropyModel, strings: Any, indexes: Tensor, means: Tensor | None) -> None:
    if not isinstance(strings, (tuple, list)):
        raise ValueError("Invalid `strings` parameter type.")
    if len(strings) != indexes.size(0):
        raise ValueError("Invalid strings or indexes parameters")
    if len(indexes.size()) < 2:
        raise ValueError("Invalid `indexes` size. Expected a tensor with at least 2 dimensions.")
    check_tables(model)
    if means is None:
        return
    if means.size()[:2] != indexes.size()[:2]:
        raise ValueError("Invalid means or indexes parameters")
    if means.size() != indexes.size() and any(n != 1 for n in means.shape[2 : indexes.dim()]):
        raise ValueError("Invalid means parameters")


def check_tables(model: EntropyModel) -> None:
    model._check_cdf_size()
    model._check_cdf_length()
    model._check_offsets_size()


def compress(self: Host, inputs: Tensor, indexes: Tensor, means: Tensor | None = None) -> list[bytes]:
    if not takes(self):
        return ORIGINAL[EntropyModel, "compress"](self, inputs, indexes, means)
    return encode_latents(self, inputs, indexes, means)


def decompress(
    self: Host, strings: Strings, indexes: Tensor, dtype: torch.dtype = torch.float, means: Tensor | None = None
) -> Tensor:
    if not takes(self):
        return ORIGINAL[EntropyModel, "decompress"](self, strings, indexes, dtype, means)
    _check_strings(self, strings, indexes, means)
    return decode_latents(self, strings, indexes, means, dtype)


def compress_variable(
    self: Host, inputs: Tensor, indexes: Tensor, means: Tensor | None = None, qs: Tensor | None = None
) -> list[bytes]:
    if not takes(self):
        return ORIGINAL[EntropyModelVbr, "compress"](self, inputs, indexes, means, qs)
    if qs is None:
        return encode_latents(self, inputs, indexes, means)
    symbols = self.quantize_variable(inputs, "symbols", means=means, qs=qs)
    check_inputs(self, inputs, indexes)
    return encode(tables_of(self), symbols, indexes)


def decompress_variable(
    self: Host,
    strings: Strings,
    indexes: Tensor,
    dtype: torch.dtype = torch.float,
    means: Tensor | None = None,
    qs: Tensor | None = None,
) -> Tensor:
    if not takes(self):
        return ORIGINAL[EntropyModelVbr, "decompress"](self, strings, indexes, dtype, means, qs)
    _check_strings(self, strings, indexes, means)
    if qs is None:
        return decode_latents(self, strings, indexes, means, dtype)
    outputs = decode(tables_of(self), strings, indexes, self._quantized_cdf.device)
    return self.dequantize_variable(outputs, means=means, dtype=dtype, qs=qs)


def build_indexes(self: Host, scales: Tensor) -> Tensor:
    # A scale's index is how many entries of the table but the last are below it (torch: 63 comparisons of the whole
    # tensor). The bound is what LowerBound's forward takes the maximum with.
    bound = self.lower_bound_scale
    table = self.scale_table
    if not (
        type(bound) is stock.LowerBound
        and scales.dtype == table.dtype == bound.bound.dtype == torch.float32
        and scales.device == table.device
        and bound.bound.numel() == 1
        and table.numel() > 0
    ):
        return ORIGINAL[GaussianConditional, "build_indexes"](self, scales)
    if scales.device.type == "cpu":
        return scale_indexes(scales, table, float(bound.bound))
    edges = torch.sort(table[:-1]).values
    return torch.bucketize(torch.max(scales.detach(), bound.bound).contiguous(), edges, out_int32=True)


def scale_indexes(scales: Tensor, table: Tensor, bound: float) -> Tensor:
    """build_indexes of float32 scales on the CPU: int32, contiguous, of the shape of scales."""
    out = torch.empty(scales.shape, dtype=torch.int32)
    _ans.scale_indexes(_flat(scales), table.contiguous(), bound, out.view(-1))
    return out
