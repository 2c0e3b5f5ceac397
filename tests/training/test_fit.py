"""Fitted tables: what the format demands, what they gain, and that the command writes a model that works."""

import json
import math

import numpy as np
import plain_decoder
import pytest
import torch
from conftest import textured
from PIL import Image
from safetensors import safe_open

import ckbd
from ckbd import cli
from ckbd.model import arrays, entropy
from ckbd.training import fit
from ckbd.training.fit import Counts

Nz = 3
PRIOR = entropy.FactorizedPrior(Nz)
TABLES = entropy.gaussian_tables() | entropy.factorized_tables(PRIOR, 127)


def obeys_the_format(tables):
    freq, largest = tables["table.y.freq"].long(), tables["table.y.max"].long()
    assert freq.shape[0] == len(largest) == 64
    for k, (f, m) in enumerate(zip(freq, largest.tolist(), strict=True)):
        assert 1 <= m <= (6 if k <= 22 else 126) and m + 2 <= freq.shape[1]
        assert f[0] % 2 == 0 and bool((f[: m + 2] >= 1).all()) and bool((f[m + 2 :] == 0).all())
        assert int(f[0] + 2 * f[1 : m + 2].sum()) == 4096
    rows = (tables[f"table.z.{name}"].long() for name in ("freq", "low", "size"))
    for f, low, size in zip(*rows, strict=True):
        assert 1 <= size <= 255 and -127 <= low and low + size - 1 <= 127
        assert bool((f[: size + 1] >= 1).all()) and bool((f[size + 1 :] == 0).all()) and int(f.sum()) == 4096
    return True


def counts(y=None, z=None):
    """Counts with the same y (64, 1024) and z (Nz, 255) at every quality."""
    made = Counts.none(Nz)
    if y is not None:
        made.y += y.long()
    if z is not None:
        made.z += z.long()
    return made


def laplacian(k, n):
    """n symbols of |r| as a Laplacian of scale index k has them, (1024,)."""
    decay = math.sqrt(2) / float(entropy.scale_of(torch.tensor(float(k))))
    edges = torch.arange(1024, dtype=torch.float64) - 0.5
    above = torch.exp(-decay * edges.clamp(min=0))
    return (n * (above - torch.cat((above[1:], torch.zeros(1))))).round()


@pytest.mark.parametrize("k", [12, 16, 22, 23, 30, 40])
def test_a_laplacian_is_coded_at_its_entropy(k):
    """The gain is the divergence of the Gaussian, which theory knows; what is lost of it is the twelve bits."""
    y = torch.zeros(64, 1024)
    y[k] = laplacian(k, 1e7)
    fitted = fit.fit(TABLES, counts(y), counts(y))
    p = y[k].double() / y[k].sum()
    entropy_bits = float((-torch.xlogy(p, p)).sum() / math.log(2) + 1 - p[0])  # a sign for all but 0
    before, after = (float((p * fit.code_lengths(TABLES | tables)[0][k]).sum()) for tables in ({}, fitted.tables))
    assert before > 1.015 * entropy_bits
    room = 0.02 if k <= 22 else 0.005  # narrow tables end at 6, and what lies beyond costs bytes
    assert entropy_bits <= after <= (1 + room) * entropy_bits
    assert obeys_the_format(fitted.tables)


def test_classes_and_channels_without_data_keep_their_priors_lengths():
    fitted = fit.fit(TABLES, counts(), counts())
    assert obeys_the_format(fitted.tables)
    gaussian, length = fit.gaussian_mass(), [fit.code_lengths(TABLES | t)[0] for t in ({}, fitted.tables)]
    assert bool(((gaussian * length[1]).sum(1) <= (gaussian * length[0]).sum(1) + 1e-6).all())
    p = fit.table_mass(TABLES)
    length = [fit.code_lengths(TABLES | t)[1] for t in ({}, fitted.tables)]
    assert bool(((p * length[1]).sum(1) <= (p * length[0]).sum(1) + 1e-6).all())


def hostile(case):
    y, z = torch.zeros(64, 1024), torch.zeros(Nz, 255)
    if case == "spikes at 0":
        y[:, 0], z[:, 127] = 1e12, 1e12
    elif case == "spikes far out":
        y[:, 1023], z[0, 0], z[1, 254], z[2, 3] = 1e12, 1e12, 1e12, 1
    elif case == "flat":
        y[:], z[:] = 1e6, 1e6
    elif case == "combs":
        y[:, ::7], z[:, ::7] = 1e6, 1e6
    elif case == "one of each kind":
        y[5, 900], z[1, 0], z[1, 254] = 1, 1, 1
    return counts(y, z)


@pytest.mark.parametrize("case", ["spikes at 0", "spikes far out", "flat", "combs", "one of each kind"])
def test_hostile_counts_give_tables_of_the_format_that_are_not_worse(case):
    made = hostile(case)
    fitted = fit.fit(TABLES, made, made)
    assert obeys_the_format(fitted.tables)
    assert bool((fitted.after <= fitted.before * (1 + 1e-3)).all())


def test_the_range_of_a_table_is_the_best_of_all_by_exhaustion():
    p = torch.zeros(1, 255, dtype=torch.float64)
    p[0, 120:131] = torch.tensor([1.0, 0, 0, 400, 900, 0, 2000, 800, 2, 0, 1])
    p[0, 9] = 3
    got = TABLES | fit.best_z(p)

    def bits(first, last):
        row = [*p[0, first : last + 1].tolist(), float(p.sum() - p[0, first : last + 1].sum())]
        table = entropy.z_tables([row], [first - 127])
        return float((p * fit.code_lengths(TABLES | table)[1]).sum())

    best = min(bits(first, last) for first in (9, *range(118, 128)) for last in range(first, 132))
    assert float((p * fit.code_lengths(got)[1]).sum()) == pytest.approx(best, rel=1e-3)
    assert int(got["table.z.low"][0]) > 9 - 127, "one far symbol is not worth slots for a hundred others"


def test_code_lengths_are_those_of_table_bits():
    rng = np.random.default_rng(0)
    k, r = (torch.from_numpy(rng.integers(low, high, 4000)) for low, high in ((0, 64), (-1023, 1024)))
    z = torch.from_numpy(rng.integers(-127, 128, 4000 * Nz))
    y_bits, z_bits = fit.code_lengths(TABLES)
    ours = y_bits[k, r.abs()].sum() + z_bits[torch.arange(len(z)) % Nz, z + 127].sum()
    assert float(ours) == pytest.approx(entropy.table_bits(TABLES, z, [(k, r)]), rel=1e-12)


def test_every_quality_counts_alike_whatever_its_bits():
    """Two qualities with the same class, one with a thousand times the symbols: the table lies between them."""
    made = Counts.none(Nz)
    made.y[0, 30, 1], made.y[1, 30, 3] = 1000, 1_000_000
    f = fit.fit(TABLES, made, made).tables["table.y.freq"][30].double()
    assert 0.2 < float(f[1] / f[3]) < 5


def test_rare_counts_do_not_override_the_gaussian():
    rng = np.random.default_rng(0)
    k = 35
    draws = np.abs(np.round(rng.normal(0, float(entropy.scale_of(torch.tensor(float(k)))), 60))).astype(int)
    parts = [counts(), counts()]
    for made, some in zip(parts, (draws[:40], draws[40:]), strict=True):
        made.y[:, k] += torch.from_numpy(np.bincount(some, minlength=1024))
    fitted = fit.fit(TABLES, *parts)
    p = fit.gaussian_mass()[k]
    before, after = (float((p * fit.code_lengths(TABLES | t)[0][k]).sum()) for t in ({}, fitted.tables))
    assert after < 1.05 * before


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for i in range(22):
        Image.fromarray(textured(64 + i, 128, i)).save(folder / f"{i:02}.png")
    return folder


@pytest.fixture(scope="module")
def fitted_path(pictures, tiny_path, tmp_path_factory):
    out = tmp_path_factory.mktemp("fitted") / "fitted.safetensors"
    assert cli.main(["fit-tables", str(tiny_path), "--data", str(pictures), "--out", str(out)]) == 0
    return out


def tensors(path):
    with safe_open(str(path), "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()


def identity(found):
    return arrays.identity({name: tensor.numpy() for name, tensor in found.items()})


def test_the_command_changes_tables_and_nothing_else(fitted_path, tiny_path):
    (new, metadata), (old, before) = tensors(fitted_path), tensors(tiny_path)
    assert new.keys() == old.keys() and metadata["format"] == before["format"]
    assert json.loads(metadata["config"]) == json.loads(before["config"])
    changed = {name for name in new if not torch.equal(new[name], old[name])}
    assert changed and changed <= set(fit.TABLES)
    assert identity(new) != identity(old)
    assert obeys_the_format(new)


def test_streams_by_fitted_tables_are_smaller_and_decode_to_the_same_latents(fitted_path, tiny):
    codec = ckbd.load(fitted_path)
    images = [textured(100, 150, 99), textured(64, 64, 98)]
    for quality in (1.0, 50.0, 100.0):
        # Effort 1 weighs the tables' bits: other tables, other choices.
        old, new = (c.encode(images, quality=quality, effort=0) for c in (tiny, codec))
        assert sum(map(len, new)) < sum(map(len, old))
        for a, b in zip(tiny.decode_latents(old), codec.decode_latents(new), strict=True):
            assert np.array_equal(a, b)
        with pytest.raises(ckbd.FormatError, match="model"):
            tiny.decode(new)
    plain = plain_decoder.decode(new[1], plain_decoder.load_model(str(fitted_path)))
    assert np.array_equal(plain.y_hat, codec.decode_latents(new[1:])[0])


def test_the_same_call_writes_the_same_file(fitted_path, pictures, tiny_path, tmp_path, capsys):
    for name, seed in (("again", "0"), ("other", "1")):
        out = str(tmp_path / f"{name}.safetensors")
        arguments = ["fit-tables", str(tiny_path), "--data", str(pictures), "--out", out, "--seed", seed]
        assert cli.main(arguments) == 0
    first, again, other = (
        tensors(p)[0] for p in (fitted_path, *(tmp_path / f"{n}.safetensors" for n in ("again", "other")))
    )
    assert all(torch.equal(t, again[name]) for name, t in first.items())
    assert identity(first) != identity(other)
    assert "pseudo-counts" in capsys.readouterr().out


def test_bad_input_is_refused_and_leaves_nothing(tiny_path, pictures, tmp_path, capsys):
    few = tmp_path / "few"
    few.mkdir()
    Image.fromarray(textured(64, 64)).save(few / "a.png")
    (tmp_path / "junk.safetensors").write_bytes(b"junk")
    out, model, data = tmp_path / "out.safetensors", str(tiny_path), str(pictures)
    for arguments, words in (
        ((model, data, tmp_path / "out.bin"), "expected a name in .safetensors"),
        ((model, data, tmp_path / "nowhere" / "out.safetensors"), "a folder that exists"),
        ((model, few, out), "expected at least 20 pictures, got 1"),
        ((model, tmp_path / "none.tar", out), "No such file"),
        ((model, tmp_path / "junk.safetensors", out), "neither a folder nor a tar file"),
        ((tmp_path / "junk.safetensors", data, out), "not a safetensors file"),
        ((model, data, tiny_path), "exists"),
    ):
        model_file, folder, target = map(str, arguments)
        assert cli.main(["fit-tables", model_file, "--data", folder, "--out", target]) == 1
        assert words in capsys.readouterr().err
    whole = ["fit-tables", model, "--data", data, "--out", str(out)]
    for extra, words in (
        (["--pictures", "-3"], "pictures: expected at least 1, got -3"),
        (["--threads", "0"], "threads"),
    ):
        assert cli.main([*whole, *extra]) == 1
        assert words in capsys.readouterr().err
    assert not out.exists() and sorted(p.name for p in tmp_path.iterdir()) == ["few", "junk.safetensors"]
