"""Models of the papers by config: prior, context, centring, mixture and transforms are fields, not classes.

Factorised prior: Balle, Laparra and Simoncelli, "End-to-end optimized image compression", ICLR 2017; scale
hyperprior: Balle et al., ICLR 2018; mean-scale hyperprior and serial context: Minnen et al., NeurIPS 2018;
checkerboard and random masks: He et al., CVPR 2021. The checkerboard of `ckbd.model.model` is the codec that ships;
these are for study, and their streams are of version 2 (docs/format.md, section 9).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ckbd.kernels import numerics, products
from ckbd.kernels.numerics import round_half_up
from ckbd.model import entropy
from ckbd.model.config import Config
from ckbd.model.model import HIDDEN_FRAC, K_FRAC, ExactLayers, first_gains, gain_at, hyper_map, lmbda_at, networks
from ckbd.model.quant import QuantLinear
from ckbd.model.transforms import Analysis, Synthesis
from ckbd.papers import context
from ckbd.papers.context import Context
from ckbd.papers.minnen import MinnenAnalysis, MinnenHyperAnalysis, MinnenSynthesis

SHARE_MAX = 63
MANY = 8  # sites
CHOICES = {
    "transform": ("ckbd", "minnen2018"),
    "prior": ("factorised", "scale", "mean-scale"),
    "centring": ("mean", "integer"),
    "mixtures": (1, 3),
    "supernet": (False, True),
    "supernet_side": (5, 7),
}


@dataclass(frozen=True)
class VariantConfig(Config):
    """Config's widths (`width` is N of minnen2018) and what the model is.

    context: may be given as a name of ckbd.papers.context.NAMED or as a mask and an order, of which context.from_spec
    makes a Context. centring: "mean", y_hat = round(y - mean) + mean, or "integer", the paper's y_hat = round(y).
    mixtures: Gaussians an element; 3 need centring "integer". supernet: the mask is drawn for each step of training,
    all taps of a square have weights; context must be "none".
    """

    transform: str = "ckbd"
    prior: str = "mean-scale"
    context: Context = context.NAMED["checkerboard"]
    centring: str = "mean"
    mixtures: int = 1
    supernet: bool = False
    supernet_side: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.groups:
            raise ValueError(f"groups: a model of the papers has none, got {self.groups}")
        for name, choices in CHOICES.items():
            value = getattr(self, name)
            if not any(type(value) is type(c) and value == c for c in choices):
                raise ValueError(f"{name}: expected one of {', '.join(map(str, choices))}, got {value!r}")
        object.__setattr__(self, "context", context.from_spec(self.context))
        if self.prior == "factorised" and (self.taps or self.mixtures > 1):
            raise ValueError("context, mixtures: a factorised prior has neither, got some")
        if self.mixtures > 1 and (self.centring != "integer" or self.prior != "mean-scale"):
            raise ValueError("mixtures: several means need centring 'integer' and prior 'mean-scale'")
        if self.supernet and (self.context != context.NAMED["none"] or self.centring != "integer"):
            raise ValueError("supernet: expected context 'none' and centring 'integer', masks are drawn in training")

    @property
    def seen(self) -> Context:
        """The context that has weights: all taps of a supernet."""
        return context.everything(self.supernet_side) if self.supernet else self.context

    @property
    def taps(self) -> int:
        return len(self.seen.taps)

    @property
    def has_means(self) -> bool:
        return self.prior == "mean-scale"

    @property
    def centred(self) -> bool:
        """Whether residuals are rounded about the mean; about zero, y_hat = round(y), is known before any context."""
        return self.centring == "mean" or not self.has_means

    @property
    def outputs(self) -> int:
        """Rows of exact.output: means, table indices, shares of every part and channel, as far as there are any."""
        return self.M * self.mixtures * (1 + self.has_means + (self.mixtures > 1))


class VariantZone(nn.Module):
    """From (z_hat, quality, context) to the parameters of every site, as trainable integer layers."""

    def __init__(self, c: VariantConfig):
        super().__init__()
        rows = c.M * c.mixtures
        kinds = [4.0] * c.has_means + [float(K_FRAC)] * (1 + (c.mixtures > 1))
        out_frac = torch.tensor(kinds).repeat_interleave(rows)
        self.h_s_0 = QuantLinear((4 * c.h_s, c.Nz + 1, 3, 3), in_frac=4, out_frac=HIDDEN_FRAC)
        self.h_s_1 = QuantLinear((4 * c.psi, c.h_s, 3, 3), in_frac=HIDDEN_FRAC, out_frac=HIDDEN_FRAC)
        shape = (c.H1, c.psi + c.taps * c.M)
        self.first = QuantLinear(shape, in_frac=HIDDEN_FRAC, out_frac=HIDDEN_FRAC, phases=2, gain=0.7)
        self.hidden = QuantLinear((c.H2, c.H1), in_frac=HIDDEN_FRAC, out_frac=HIDDEN_FRAC)
        self.output = QuantLinear((c.outputs, c.H2), in_frac=HIDDEN_FRAC, out_frac=out_frac, gain=0.3)
        with torch.no_grad():
            k = self.output.bias[rows * c.has_means :][:rows].view(c.mixtures, c.M)
            # Unequal scales tell the parts of a mixture apart from the first step.
            k += 16.0 / 2**K_FRAC + torch.arange(c.mixtures).view(-1, 1)
            if c.mixtures > 1:
                self.output.bias[2 * rows :] = 32.0 / 2**K_FRAC

    def integers(self) -> ExactLayers:
        layers = (self.h_s_0, self.h_s_1, self.first, self.hidden, self.output)
        return ExactLayers(zip(ExactLayers.NAMES, (layer.integers() for layer in layers), strict=True))


def project_psi(psi: Tensor, layers: ExactLayers) -> Tensor:
    """The hyperprior's half of the first layer: psi (B, C_psi, h, w) -> (B, h, w, H1)."""
    weight = layers["first"].weight[:, : psi.shape[1]].to(psi.dtype)
    with torch.autocast(psi.device.type, enabled=False):
        return _linear(psi.permute(0, 2, 3, 1), weight)


def parameters(acc: Tensor, layers: ExactLayers, c: VariantConfig) -> tuple[Tensor, Tensor, Tensor]:
    """From the first layer's accumulator, bias included, (..., H1) to (mean, k, share), each (..., mixtures, M).

    Integer-valued: mean in 1/16 (zeros if the prior has none), k 0..63, share 0..63 (zeros unless it is a mixture).
    """
    first, hidden, output = layers.g_ep
    dtype, rows = acc.dtype, c.M * c.mixtures
    least = [-numerics.MEAN_MAX] * c.has_means + [0] * (1 + (c.mixtures > 1))
    most = [numerics.MEAN_MAX] * c.has_means + [numerics.K_MAX] + [SHARE_MAX] * (c.mixtures > 1)
    low, high = (acc.new_tensor(v, dtype=dtype).repeat_interleave(rows) for v in (least, most))
    with torch.autocast(acc.device.type, enabled=False):
        h = numerics.requantise(acc, first, 0, numerics.ACT_MAX)
        h = numerics.requantise(
            _linear(h, hidden.weight.to(dtype), hidden.bias.to(dtype)), hidden, 0, numerics.ACT_MAX
        )
        out = numerics.requantise(_linear(h, output.weight.to(dtype), output.bias.to(dtype)), output, low, high)
    parts = out.unflatten(-1, (-1, c.mixtures, c.M)).unbind(-3)
    nothing = torch.zeros_like(parts[0])
    mean, parts = (parts[0], parts[1:]) if c.has_means else (nothing, parts)
    return mean, parts[0], parts[1] if c.mixtures > 1 else nothing


def with_context(
    psi_acc: Tensor,
    seen: Tensor | None,
    phase: Tensor,
    layers: ExactLayers,
    c: VariantConfig,
    w_context: Tensor | None = None,
) -> Tensor:
    """The first layer's accumulator: psi_acc (..., H1), seen (..., taps M) companded, phase (...) of each site.

    A site of phase 0 has a bias of its own, bias[0], since it never sees anything; all others have bias[1]. seen is
    None where nothing is seen. w_context: the context's columns of the first layer's weight, for those who have them
    at hand without gaps.
    """
    first = layers["first"]
    acc = psi_acc + first.bias.to(psi_acc.dtype)[(phase > 0).long()]
    if seen is None or not c.taps:
        return acc
    with torch.autocast(psi_acc.device.type, enabled=False):
        weight = first.weight[:, c.psi :].to(psi_acc.dtype) if w_context is None else w_context
        return acc + _linear(seen, weight)


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A product, for many sites by the quickest library; for a few, PyTorch's own way is the shorter one."""
    return products.linear(x, weight, bias) if x.shape[:-1].numel() >= MANY else F.linear(x, weight, bias)


class Variant(nn.Module):
    """The trainable codec of a config: g_a, h_a, exact zone, g_s, gains, and the prior of z (of y: factorised)."""

    def __init__(self, config: VariantConfig):
        super().__init__()
        self.config = c = config
        self.g_a, self.h_a, self.g_s = transforms(c)
        self.prior = entropy.FactorizedPrior(c.M if c.prior == "factorised" else c.Nz)
        if c.prior != "factorised":
            self.exact = VariantZone(c)  # last: what comes before starts alike whatever the context
        log_gain = first_gains(c)
        self.log_gain = nn.Parameter(log_gain)
        self.log_ungain = nn.Parameter(-log_gain)

    def lmbda(self, quality: Tensor) -> Tensor:
        """Rate-distortion weight of a quality 1..100, any shape."""
        return lmbda_at(self.config, (quality - 1) / 99)

    def forward(
        self, x: Tensor, quality: Tensor, rate: str = "noise", latent: str = "ste", only: Tensor | None = None
    ) -> dict[str, Tensor]:
        """x (B, 3, H, W) in [0, 1], H and W multiples of 64; quality (B,) from 1 to 100.

        rate: the bits are of y and z with additive uniform noise ("noise") or as they are coded ("rounded"). latent:
        g_s and the context see y rounded with a straight-through gradient ("ste") or with that noise ("noise"); z is
        always rounded, it enters integers. only: (taps,) 0 or 1, the mask of a supernet's step. Returns x_hat (B, 3,
        H, W), bits_y and bits_z (B,).
        """
        y = (self.g_a(x) * gain_at(self.log_gain, quality)).float()
        noisy = y + torch.rand_like(y) - 0.5
        if self.config.prior == "factorised":
            y_hat = round_half_up(y) if latent == "ste" else noisy
            bits_y = self.prior.bits(noisy if rate == "noise" else round_half_up(y)).flatten(1).sum(1)
            bits_z = torch.zeros_like(bits_y)
        else:
            z = self.h_a(y).float().clamp(-numerics.ACT_MAX, numerics.ACT_MAX)
            z_hat = round_half_up(z)
            bits_z = self.prior.bits(z + torch.rand_like(z) - 0.5 if rate == "noise" else z_hat).flatten(1).sum(1)
            layers = self.exact.integers()
            psi_acc = project_psi(hyper_map(z_hat, torch.floor(quality), layers), layers)
            y_hat, bits = self._latents(y, noisy, psi_acc, layers, rate, latent, only)
            bits_y = bits.flatten(1).sum(1)
            y_hat = y_hat.permute(0, 3, 1, 2)
        x_hat = self.g_s(y_hat * gain_at(self.log_ungain, quality))
        return {"x_hat": x_hat.float(), "bits_y": bits_y, "bits_z": bits_z}

    def _latents(
        self,
        y: Tensor,
        noisy: Tensor,
        psi_acc: Tensor,
        layers: ExactLayers,
        rate: str,
        latent: str,
        only: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """(y_hat, bits), channels last (B, h, w, M). Rounding, entropy and context in one pass, or in one for each
        phase.

        With centring "mean" a raster scan would need one pass a site, for each mean waits for the sites before: there
        the context sees round(y) or noise in training, and only the coder runs the scan.
        """
        c, (y, noisy) = self.config, (t.permute(0, 2, 3, 1) for t in (y, noisy))
        H, W = y.shape[1:3]
        live, phase = c.seen.live(H, W), c.seen.phase_map(H, W).to(y.device)
        if c.supernet:
            if only is None:
                raise ValueError("only: a supernet needs the mask of this step, got none")
            live, phase = None, torch.full((H, W), int(only.sum() > 0))
        live = None if live is None else live.to(y.device)
        whole = round_half_up(y.clamp(-numerics.R_MAX, numerics.R_MAX)) if latent == "ste" else noisy

        def params(y_hat: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            seen = context.columns(numerics.compand(round_half_up(numerics.MEAN_STEP * y_hat)), c.seen, live, only)
            return parameters(with_context(psi_acc, seen, phase, layers, c), layers, c)

        y_hat = whole
        if c.centring == "mean" and c.has_means:
            count = 1 if c.context.order is None else c.context.phases
            for p in range(count):
                mean, k, share = params(y_hat)
                centre = mean[..., 0, :] / numerics.MEAN_STEP
                done = round_half_up(y - centre) + centre if latent == "ste" else noisy
                y_hat = torch.where((phase == p)[..., None], done, y_hat) if count > 1 else done
            if count > 1:  # every phase's parameters, of what they have truly seen
                mean, k, share = params(y_hat)
        else:
            mean, k, share = params(y_hat)
        mean = mean / numerics.MEAN_STEP
        if rate == "noise":
            r = noisy.unsqueeze(-2) - mean
        elif c.centring == "mean":
            r = round_half_up(y.unsqueeze(-2) - mean)
        else:
            r = round_half_up(y).unsqueeze(-2) - mean
        if c.mixtures == 1:
            return y_hat, entropy.gaussian_bits(r, k).squeeze(-2)
        return y_hat, entropy.mixture_bits(r, k, share)


def transforms(c: VariantConfig) -> tuple[Analysis | MinnenAnalysis, nn.Module, Synthesis | MinnenSynthesis]:
    """(g_a, h_a, g_s) of a config, freshly initialised; a factorised prior has nothing for an h_a to do."""
    g_a: Analysis | MinnenAnalysis
    h_a: nn.Module
    g_s: Synthesis | MinnenSynthesis
    if c.transform == "minnen2018":
        g_a, h_a, g_s = (
            MinnenAnalysis(c.width, c.M),
            MinnenHyperAnalysis(c.hyper, c.M, c.Nz),
            MinnenSynthesis(c.width, c.M),
        )
    else:
        g_a, h_a, g_s = networks(c)
    return g_a, nn.Identity() if c.prior == "factorised" else h_a, g_s
