"""The checkerboard model: training forward, and the integers of its exact zone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ckbd.kernels import numerics, reference
from ckbd.kernels.numerics import IntLayer, round_half_up
from ckbd.model import entropy
from ckbd.model.config import Config, by_group, exact_shapes
from ckbd.model.quant import QuantLinear
from ckbd.model.transforms import Analysis, HyperAnalysis, Synthesis

HIDDEN_FRAC = 4  # hidden activations: 16 integer steps a nominal unit
K_FRAC = 3  # k: 8 table indices a nominal unit


class FloatNetworks(NamedTuple):
    """What runs in floats: reading a bit needs none of them."""

    g_a: Analysis
    h_a: HyperAnalysis
    g_s: Synthesis


def networks(c: Config) -> FloatNetworks:
    """The float networks of these widths."""
    return FloatNetworks(
        Analysis(c.analysis_width or c.width, c.M, c.analysis8, c.analysis16),
        HyperAnalysis(c.M, c.hyper, c.Nz),
        Synthesis(c.width, c.M, c.synthesis8, c.synthesis16),
    )


class ExactLayers(dict):
    """The integers of the exact zone, name -> IntLayer: those of NAMES; with channel groups "0.first", "0.hidden",
    "0.output", "1.channel", "1.first" and so on in place of the last three.
    """

    NAMES = ("h_s.0", "h_s.1", "first", "hidden", "output")

    @property
    def g_ep(self) -> tuple[IntLayer, IntLayer, IntLayer]:
        return self["first"], self["hidden"], self["output"]

    def groups(self) -> list[ExactLayers]:
        """The layers of each channel group under the names that a model without groups has, h_s in each."""
        return [ExactLayers(own) for own in by_group(self)]


class ExactZone(nn.Module):
    """From (z_hat, quality) to (mean, k): h_s and g_ep as trainable integer layers."""

    def __init__(self, c: Config):
        super().__init__()
        for name, shape in exact_shapes(c).items():
            self.add_module(_attribute(name), self._layer(name, shape))
        self.names = list(exact_shapes(c))

    @staticmethod
    def _layer(name: str, shape: tuple[int, ...]) -> QuantLinear:
        own = name.rpartition(".")[2]
        if own == "output":
            M = shape[0] // 2
            out_frac = torch.cat((torch.full((M,), 4.0), torch.full((M,), float(K_FRAC))))
            layer = QuantLinear(shape, in_frac=HIDDEN_FRAC, out_frac=out_frac, gain=0.3)
            with torch.no_grad():
                layer.bias[M:] = 16.0 / 2**K_FRAC
            return layer
        in_frac = 4 if name == "h_s.0" else HIDDEN_FRAC
        phases, gain = (2, 0.7) if own == "first" else (0, 1.0)
        return QuantLinear(shape, in_frac=in_frac, out_frac=HIDDEN_FRAC, phases=phases, gain=gain)

    def set_exact(self, exact: bool) -> None:
        """False turns the module into its float twin, which is there to measure what the integers cost."""
        for _, layer in self._named():
            layer.exact = exact

    def _named(self) -> Iterable[tuple[str, QuantLinear]]:
        return ((name, getattr(self, _attribute(name))) for name in self.names)

    def integers(self) -> ExactLayers:
        return ExactLayers((name, layer.integers()) for name, layer in self._named())

    def set_integers(self, layers: ExactLayers) -> None:
        """Takes the real weights whose integers these are."""
        for name, layer in self._named():
            layer.set_integers(layers[name])


def _attribute(name: str) -> str:
    """A layer's name as a module may have it: "h_s_0", "first", "group_1_first"."""
    return ("group_" if name[0].isdigit() else "") + name.replace(".", "_")


def projected(psi: Tensor, layers: ExactLayers) -> tuple[Tensor, Tensor]:
    """The projection that both phases share: psi (B, C, h, w) -> (psi_acc of anchors, of non-anchors), packed, two
    (B, h, w/2, H1) of its dtype.
    """
    anchors, others = (reference.project_psi(half, layers["first"]) for half in reference.split(psi))
    return anchors, others


def hyper_map(
    z_hat: Tensor,
    quality: Tensor,
    layers: ExactLayers,
    sites: int | None = None,
    each: Callable[..., list[Tensor]] | None = None,
) -> Tensor:
    """h_s: psi (B, C_psi, h, w), integers in [0, 127], of z_hat's dtype.

    z_hat: (B, Nz, h/4, w/4) integers in [-127, 127]; quality: (B,) integers 1..100, which enter as one more channel
    (they are in the header, so they cost nothing). sites: at about how many at a time neighbours are gathered (None:
    reference's stripes); each: who works on stripes, as in exact_conv3x3. Neither changes anything.
    """
    B, _, h, w = z_hat.shape
    plane = quality.to(z_hat.dtype).view(B, 1, 1, 1).expand(B, 1, h, w)
    f = torch.cat((z_hat, plane), dim=1)
    for name in ("h_s.0", "h_s.1"):
        # Two stripes or more, so that there is something to share.
        stripe = 64 if sites is None else max(1, min(sites // (B * f.shape[-1]), -(-f.shape[-2] // 2)))
        f = torch.nn.functional.pixel_shuffle(reference.exact_conv3x3(f, layers[name], stripe, each), 2)
    return f


def channel_features(
    done: Sequence[Tensor], layers: ExactLayers, stripe: int = 64, each: Callable[..., list[Tensor]] | None = None
) -> Tensor:
    """What a channel group has of those before it: (B, E, h, w), integers in [0, 127] (docs/numerics.md, section 6).

    done: y_hat of each, (B, M_g, h, w) integers in 1/16; layers: those of the group. stripe, each: of exact_conv3x3.
    """
    layer = layers["channel"]
    seen = numerics.compand(torch.cat(list(done), 1), layer.exact)
    return reference.exact_conv3x3(seen, layer, stripe, each)


def lmbda_at(c: Config, position: Tensor) -> Tensor:
    """The rate-distortion weight at a position from 0, lmbda_min, to 1, lmbda_max."""
    return c.lmbda_min * (c.lmbda_max / c.lmbda_min) ** position


def first_gains(c: Config) -> Tensor:
    """Logarithms of the gains (levels, M) from which training starts.

    High-rate theory for an orthonormal transform: step^2 = 18 / (lmbda ln 2); features are 255 / 64 units.
    """
    lmbda = lmbda_at(c, torch.linspace(0, 1, c.levels))
    return torch.log(64.0 / torch.sqrt(18.0 / (lmbda * math.log(2.0)))).view(-1, 1).repeat(1, c.M)


def carried_gains(log_gain: Tensor, of: Config, to: Config) -> Tensor:
    """(levels, M) log gains that give each rate-distortion weight of a range the gain that it had in another.

    Beyond the old range they go on by high-rate theory, as first_gains: half the logarithm of the weight.
    """
    lmbda = torch.linspace(0, 1, to.levels, dtype=torch.float64)
    lmbda = math.log(to.lmbda_min) + lmbda * math.log(to.lmbda_max / to.lmbda_min)
    span = math.log(of.lmbda_max / of.lmbda_min)
    place = (lmbda - math.log(of.lmbda_min)) / span
    inside = gain_at(log_gain, 1 + 99 * place.clamp(0, 1).to(log_gain)).log()[..., 0, 0]
    return inside + (0.5 * span * (place - place.clamp(0, 1))).to(log_gain).unsqueeze(1)


class Checkerboard(nn.Module):
    """The trainable codec: g_a, h_a, exact zone, g_s, gains and z's prior."""

    def __init__(self, config: Config | None = None):
        super().__init__()
        self.config = c = config or Config()
        parts = networks(c)
        self.g_a, self.g_s, self.h_a = parts.g_a, parts.g_s, parts.h_a
        self.exact = ExactZone(c)
        self.prior = entropy.FactorizedPrior(c.Nz)
        log_gain = first_gains(c)
        self.log_gain = nn.Parameter(log_gain)
        self.log_ungain = nn.Parameter(-log_gain)

    def lmbda(self, quality: Tensor) -> Tensor:
        """Rate-distortion weight of a quality 1..100, any shape."""
        return lmbda_at(self.config, (quality - 1) / 99)

    def forward(self, x: Tensor, quality: Tensor, noise: bool = True) -> dict[str, Tensor]:
        """x (B, 3, H, W) in [0, 1], H and W multiples of 64; quality (B,) in steps of 1/2 from 1 to 100.

        Returns x_hat (B, 3, H, W) and bits_y, bits_z (B,). noise: rates from additive uniform noise (training)
        instead of from the rounded values; y_hat and z_hat are rounded either way.
        """
        y = self.g_a(x) * gain_at(self.log_gain, quality)
        z = self.h_a(y).float().clamp(-numerics.ACT_MAX, numerics.ACT_MAX)
        z_hat = round_half_up(z)
        y_hat, bits_y = self.two_phases(y, z_hat, quality, noise)
        bits_z = self.prior.bits(z + torch.rand_like(z) - 0.5 if noise else z_hat).flatten(1).sum(1)
        x_hat = self.g_s(y_hat * gain_at(self.log_ungain, quality))
        return {"x_hat": x_hat, "bits_y": bits_y, "bits_z": bits_z}

    def two_phases(self, y: Tensor, z_hat: Tensor, quality: Tensor, noise: bool) -> tuple[Tensor, Tensor]:
        """(y_hat (B, M, h, w), bits (B,)) by the arithmetic of the decoder."""
        layers = self.exact.integers()
        psi = hyper_map(z_hat, torch.floor(quality), layers)
        bits = torch.zeros(len(y), device=y.device)
        done: list[Tensor] = []
        for own, part in zip(layers.groups(), y.split(self.config.groups or self.config.M, 1), strict=True):
            features = torch.cat((psi, channel_features(done, own)), 1) if done else psi
            y_hat, more = self._group(projected(features, own), part, own, noise)
            done.append(y_hat)
            bits = bits + more
        return (torch.cat(done, 1) if len(done) > 1 else done[0]) / numerics.MEAN_STEP, bits

    def _group(self, psi_acc: Iterable[Tensor], y: Tensor, layers: ExactLayers, noise: bool) -> tuple[Tensor, Tensor]:
        """(y_hat (B, M_g, h, w) in 1/16, bits (B,)) of a channel group or of all channels; psi_acc: of each phase."""
        context, halves, bits = None, [], torch.zeros(len(y), device=y.device)
        for acc, half in zip(psi_acc, reference.split(y), strict=True):
            mean, k = reference.phase(acc, context, layers.g_ep)
            real_mean = mean / numerics.MEAN_STEP
            r = round_half_up(half - real_mean)
            y_hat = numerics.MEAN_STEP * r + mean
            residual = half - real_mean + torch.rand_like(half) - 0.5 if noise else r
            bits = bits + entropy.gaussian_bits(residual, k).flatten(1).sum(1)
            context = numerics.compand(y_hat, layers["first"].exact)
            halves.append(y_hat)
        anchors, others = halves
        return reference.merge(anchors, others), bits


def gain_at(log_gain: Tensor, quality: Tensor) -> Tensor:
    """Gains (B, M, 1, 1) at qualities (B,) in [1, 100]: log-linear between the levels of log_gain (levels, M)."""
    place = (quality - 1) / 99 * (log_gain.shape[0] - 1)
    low = torch.floor(place).clamp(0, log_gain.shape[0] - 2).long()
    part = (place - low).unsqueeze(1)
    return torch.exp(log_gain[low] * (1 - part) + log_gain[low + 1] * part)[..., None, None]
