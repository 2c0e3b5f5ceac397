"""Multiply-adds and bytes of a phase, counted as it is launched; the benchmarks divide by these."""

from __future__ import annotations

from dataclasses import dataclass

from ckbd.kernels.configs import Config
from ckbd.kernels.lattice import Lattice
from ckbd.kernels.network import Network, taps


@dataclass(frozen=True)
class Cost:
    """macs: multiply-adds that the sites and channels of the model need. issued: those that the launches do, with
    what tiles and padded widths add. bytes: each input, weight and output once (the floor of traffic to memory).
    """

    macs: int
    issued: int
    bytes: int


def phase_cost(network: Network, lattice: Lattice, p: int, config: Config) -> Cost:
    """What ckbd.kernels.phase costs for phase p (psi_acc already there)."""
    count = len(taps(network.kernel)) if p else 0
    M, H1, H2 = network.M, network.H1, network.H2
    H1P, H2P, MP = network.hidden[0].shape[1], network.output[0].shape[1], network.output[0].shape[0] // 2
    CP = network.first[0].shape[1] // len(taps(network.kernel))
    # Of an odd number of sites, the one more belongs to the phase of the corner (0, 0).
    sites = sum((H * W + (p == lattice.parity)) // 2 for H, W in lattice.sizes)
    tiles = sum(-(-H * ((W + 1) // 2) // config.block_p) for H, W in lattice.sizes)
    size = network.psi.element_size()
    weights = H1P * count * CP + H2P * H1P + 2 * MP * H2P
    packed = lattice.sites
    moved = size * weights + packed * (
        4 * H1P + (M * size if p else 0) + M * (network.mean_dtype.itemsize + network.k_dtype.itemsize)
    )
    return Cost(
        macs=sites * (count * M * H1 + H1 * H2 + 2 * M * H2),
        issued=tiles * config.block_p * weights,
        bytes=moved,
    )


def dense_macs(network: Network, lattice: Lattice) -> int:
    """Multiply-adds of the same phase as public code runs it: a dense convolution M -> 2M over all sites, both
    halves, whose output joins psi (as wide as it) before the 1x1 layers, again over all sites.
    """
    M, C = network.M, network.C
    per_site = network.kernel**2 * M * 2 * M + (2 * M + C) * network.H1 + network.H1 * network.H2 + 2 * M * network.H2
    return lattice.full_sites * per_site
