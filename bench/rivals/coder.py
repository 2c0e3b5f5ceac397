"""The entropy coders that bench/coder.py compares with, each called as its documentation says, on one thread.

Their libraries are imported when they are asked for: `pip install ckbd[bench]`, in an environment of its own. All but
constriction use the tables that CompressAI builds for the same 64 scales (16 bits); constriction computes its
Gaussians as it goes. They code y alone, in the order in which ckbd does.
"""

from __future__ import annotations

import functools
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import torch

from bench.workloads import Picture
from ckbd.kernels.numerics import R_MAX
from ckbd.model import entropy


class Coder:
    """One way to code pictures; what encode and decode need besides symbols and bytes is made ready beforehand.

    name, threads: as in the table. codes_z: whether the hyper latents are coded too.
    """

    name: str
    threads = 1
    codes_z = False

    @staticmethod
    def library():
        """What it is made of, imported. Raises ImportError if that is not installed."""

    def __init__(self, pictures: list[Picture]) -> None:
        self.pictures = pictures

    def encode(self) -> list:
        """What each picture becomes."""
        raise NotImplementedError

    def decode(self, coded: list) -> list:
        """The symbols of each, in the form that the library gives them."""
        raise NotImplementedError

    def size(self, coded) -> int:
        """Bytes of one of what encode() returned."""
        return len(coded)

    def symbols(self, decoded) -> np.ndarray:
        """One of what decode() returned, flat: z if it is coded, then the phases."""
        return np.asarray(decoded).reshape(-1)

    def ideal_bytes(self) -> float:
        """Mean ideal size of a picture's symbols as far as they are coded."""
        return sum(p.y_bytes + self.codes_z * p.z_bytes for p in self.pictures) / len(self.pictures)

    def elements(self) -> int:
        """Elements of all pictures together, skipped ones too."""
        return sum(p.k.size + self.codes_z * p.z.size for p in self.pictures)

    def check(self) -> float:
        """Mean size of a picture in bytes. Raises RuntimeError unless every picture comes back as it was."""
        coded = self.encode()
        for picture, decoded in zip(self.pictures, self.decode(coded), strict=True):
            expected = np.concatenate((picture.z, picture.r)) if self.codes_z else picture.r
            if not np.array_equal(self.symbols(decoded), expected):
                raise RuntimeError(f"{self.name}: what was decoded is not what was encoded")
        return sum(map(self.size, coded)) / len(coded)


@functools.cache
def _torchvision_operators() -> torch.library.Library:
    """Declares, for as long as the result lives, the operators without which torchvision cannot be imported."""
    operators = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return operators


@functools.cache
def gaussian_conditional() -> torch.nn.Module:
    """CompressAI's entropy model with its tables for the 64 scales. Raises ImportError without CompressAI."""
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        # The torchvision of the package index is built for CUDA. Beside a PyTorch without CUDA its library does not
        # load, and it fails on the first operator that it takes for granted. CompressAI calls none of them.
        _torchvision_operators()
    from compressai.entropy_models import GaussianConditional

    model = GaussianConditional(entropy.scale_of(torch.arange(entropy.SCALES, dtype=torch.float64)).tolist())
    model.update()
    return model


class CompressaiLists(Coder):
    """compressai.ans, with all of its lists ready."""

    name = "compressai.ans, lists ready"

    @staticmethod
    def library():
        model = gaussian_conditional()
        from compressai import ans

        return model, ans

    def __init__(self, pictures: list[Picture]) -> None:
        super().__init__(pictures)
        model, ans = self.library()
        self.encoder, self.decoder = ans.RansEncoder(), ans.RansDecoder()
        self.tables = [t.tolist() for t in (model.quantized_cdf, model.cdf_length, model.offset)]
        self.lists = [(p.r.tolist(), p.k.tolist()) for p in pictures]

    def encode(self) -> list[bytes]:
        return [self.encoder.encode_with_indexes(r, k, *self.tables) for r, k in self.lists]

    def decode(self, coded: list[bytes]) -> list[list[int]]:
        pairs = zip(coded, self.lists, strict=True)
        return [self.decoder.decode_with_indexes(data, k, *self.tables) for data, (_, k) in pairs]


class CompressaiModel(Coder):
    """EntropyModel.compress and decompress of CompressAI: tensors in, strings out, tensors back."""

    name = "CompressAI EntropyModel"

    @staticmethod
    def library():
        return gaussian_conditional()

    def __init__(self, pictures: list[Picture]) -> None:
        super().__init__(pictures)
        self.model = self.library()
        self.tensors = [(torch.from_numpy(p.r).float()[None], torch.from_numpy(p.k).int()[None]) for p in pictures]

    def encode(self) -> list[list[bytes]]:
        return [self.model.compress(r, k) for r, k in self.tensors]

    def decode(self, coded: list[list[bytes]]) -> list[torch.Tensor]:
        return [self.model.decompress(strings, k) for strings, (_, k) in zip(coded, self.tensors, strict=True)]

    def size(self, coded: list[bytes]) -> int:
        return len(coded[0])


class Constriction(Coder):
    """constriction's ANS coder over QuantizedGaussian with a scale for each symbol, numpy arrays."""

    name = "constriction ANS"

    @staticmethod
    def library():
        import constriction

        return constriction.stream

    def __init__(self, pictures: list[Picture]) -> None:
        super().__init__(pictures)
        stream = self.library()
        scales = entropy.scale_of(torch.arange(entropy.SCALES, dtype=torch.float64)).numpy()
        self.arrays = [(p.r.astype(np.int32), scales[p.k]) for p in pictures]
        limit = 127 if pictures[0].r.dtype == np.int8 else R_MAX  # every symbol in reach costs at least a slot
        self.family, self.stack = stream.model.QuantizedGaussian(-limit, limit, mean=0.0), stream.stack.AnsCoder

    def encode(self) -> list[np.ndarray]:
        coded = []
        for r, scales in self.arrays:
            coder = self.stack()
            coder.encode_reverse(r, self.family, scales)
            coded.append(coder.get_compressed())
        return coded

    def decode(self, coded: list[np.ndarray]) -> list[np.ndarray]:
        pairs = zip(coded, self.arrays, strict=True)
        return [self.stack(words).decode(self.family, scales) for words, (_, scales) in pairs]

    def size(self, coded: np.ndarray) -> int:
        return coded.nbytes


class TorchAns(Coder):
    """torch_ans' rans64 with four interleaved states and a table for the search, the best of its coders here.

    Tried: rans64 and rans32_16 with 1, 2, 4 and 8 states, with no table and with 3 to 11 bits; tans32 and tans16.
    """

    name = "torch_ans rans64 i4"
    LOOKUP = 8  # bits of the table of inverse cumulative frequencies

    @staticmethod
    def library():
        model = gaussian_conditional()
        from torch_ans import utils

        return model, utils

    def __init__(self, pictures: list[Picture]) -> None:
        super().__init__(pictures)
        model, utils = self.library()
        # Its decoder looks for that table right behind a row's own entries; init_params() puts it behind the longest
        # row's, which is wrong for the others, so the rows are made here.
        bits = model.entropy_coder_precision
        rows = [cdf[:size] for cdf, size in zip(model.quantized_cdf, model.cdf_length, strict=True)]
        rows = [torch.cat((row, utils.inverse_quantized_cdf(row, bits, self.LOOKUP))) for row in rows]
        self.coder = utils.TorchANSInterface(
            impl="rans64",
            freq_precision=bits,
            num_parallel_states=1,
            num_interleaves=4,
            inverse_cdf_precision=self.LOOKUP,
        )
        self.coder.set_cdfs(torch.nn.utils.rnn.pad_sequence(rows, True), model.cdf_length, model.offset)
        self.tensors = [(torch.from_numpy(p.r).int()[None], torch.from_numpy(p.k).int()[None]) for p in pictures]

    def encode(self) -> list[bytes]:
        return [self.coder.encode_with_indexes(r, k) for r, k in self.tensors]

    def decode(self, coded: list[bytes]) -> list[torch.Tensor]:
        pairs = zip(coded, self.tensors, strict=True)
        return [self.coder.decode_with_indexes(data, k) for data, (_, k) in pairs]


RIVALS = (CompressaiLists, CompressaiModel, Constriction, TorchAns)
LISTS, MODEL = CompressaiLists.name, CompressaiModel.name


def installed() -> list[type[Coder]]:
    """Those whose library is there; says which are not."""
    found = []
    for rival in RIVALS:
        try:
            rival.library()
            found.append(rival)
        except ImportError as error:
            print(f"{rival.name}: not installed ({error})")
    return found


def versions() -> str:
    """The versions of the rivals' libraries."""
    found = []
    for name in ("compressai", "constriction", "torch_ans"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"no {name}")
    return ", ".join(found)
