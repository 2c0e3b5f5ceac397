"""Pictures out of folders and tar files: order, windows, and what is wrong with bad ones."""

import tarfile

import numpy as np
import pytest
import torch
from conftest import textured, turned
from PIL import Image

from ckbd.training import data

SIZES = [(70, 64), (64, 90), (40, 40), (128, 130), (64, 64)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for i, size in enumerate(SIZES):
        Image.fromarray(textured(*size, i)).save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="module", params=["", "gz"])
def tar(request, folder, tmp_path_factory):
    path = tmp_path_factory.mktemp("tar") / "data.tar"
    with tarfile.open(path, f"w:{request.param}") as out:
        for file in sorted(folder.iterdir(), reverse=True):
            out.add(file, file.name)
    return path


def test_a_tar_file_gives_what_its_folder_gives_in_name_order(folder, tar):
    for got, also, (i, size) in zip(data.pictures(tar), data.pictures(folder), enumerate(SIZES), strict=True):
        assert np.array_equal(got, textured(*size, i)) and np.array_equal(also, got)


def test_a_sample_is_of_the_pictures_each_once_and_a_seed_fixes_it(folder, tar):
    def takes(seed, count=99, side=64):
        return [p.tobytes() for p in data.sample([folder, tar], count, side, seed)]

    whole = [p.tobytes() for p in data.pictures(folder)]
    assert sorted(takes(0, side=1000)) == sorted(2 * whole)
    assert takes(0) == takes(0) != takes(1)
    assert takes(0, 3) == takes(0)[:3]
    windows = {
        p[top : top + 64, left : left + 64].tobytes()
        for p in (textured(*size, i) for i, size in enumerate(SIZES))
        for left in range(max(p.shape[1] - 63, 1))
        for top in range(max(p.shape[0] - 63, 1))
    }
    for window in data.sample([folder], 5, 64, 0):
        assert max(window.shape[:2]) <= 64 and window.tobytes() in windows


def test_a_tar_file_that_is_cut_off_is_named(tar, tmp_path):
    whole = tar.read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="cut.tar: [^\\n]+$"):
        list(data.pictures(tmp_path / "cut.tar"))


@pytest.mark.parametrize("at", [0, 3, 60, 300])
def test_a_tar_file_that_is_damaged_is_named_in_a_line(tar, tmp_path, at):
    whole = bytearray(tar.read_bytes())
    whole[at] ^= 255
    (tmp_path / "bad.tar").write_bytes(whole)
    with pytest.raises(ValueError, match=r"bad.tar: [^\n]+$"):
        list(data.pictures(tmp_path / "bad.tar"))


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """A picture whose channels are 10, 100 and 200."""
    folder = tmp_path_factory.mktemp("three")
    Image.new("RGB", (96, 96), (10, 100, 200)).save(folder / "a.png")
    return folder


def crops(way, folder, mix, seed=0):
    """(count, size) -> batch of either way to cut crops."""
    torch.manual_seed(seed)
    whole = data.Crops([str(folder)], 64, seed, mix)
    return whole.batch if way == "host" else data.DeviceCrops(whole.pictures, "cpu", mix, seed).batch


WAYS = pytest.mark.parametrize("way", ["host", "device"])


@WAYS
def test_a_share_of_the_crops_is_drawn(way, three, monkeypatch):
    monkeypatch.setattr(data, "DRAWN", 3)
    monkeypatch.setattr(data.drawn, "picture", lambda rng, side: np.full((side, side, 3), 7, np.uint8))
    for share, low, high in ((0.0, 0, 0), (0.3, 60, 130), (1.0, 300, 300)):
        x = crops(way, three, data.Mix(drawn=share))(300, 64)
        drawn_ones = (x * 255).round().flatten(1).eq(7).all(1).sum()
        assert low <= drawn_ones <= high and x.shape == (300, 3, 64, 64)


def test_a_store_of_drawn_pictures_is_as_large_as_its_crops(three, monkeypatch):
    monkeypatch.setattr(data, "DRAWN", 2)
    monkeypatch.setattr(
        data.drawn, "picture", lambda rng, side: rng.integers(256, size=(side, side, 3), dtype=np.uint8)
    )
    store = data.DeviceCrops([textured(80, 80)], "cpu", data.Mix(drawn=1.0), 5, 72)
    rng = np.random.default_rng(5)
    whole = [rng.integers(256, size=(72, 72, 3), dtype=np.uint8) for _ in range(2)]
    x = (store.batch(20, 72) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
    seen = {one.tobytes() for one in x}
    assert seen <= turned(whole[0]) | turned(whole[1]) and seen & turned(whole[0]) and seen & turned(whole[1])


@WAYS
def test_a_share_of_the_crops_has_other_and_stronger_colours(way, three):
    x = crops(way, three, data.Mix(colour=0.4))(400, 64)
    values = (x * 255).round()
    assert torch.allclose(values, 255 * x, atol=1e-3) and (values[:, :, :1, :1] == values).all()
    found = [tuple(v) for v in values[:, :, 0, 0].int().tolist()]
    changed = [v for v in found if v != (10, 100, 200)]
    assert 110 < len(changed) < 210
    orders = {tuple(np.argsort(np.argsort(v, kind="stable"), kind="stable")) for v in changed if len(set(v)) == 3}
    assert len(orders) == 5 and (0, 1, 2) not in orders  # every order but their own
    stronger = [v for v in changed if sorted(v) != [10, 100, 200]]
    assert 0.3 < len(stronger) / len(changed) < 0.7
    assert all(min(v) < 10 and max(v) > 200 for v in stronger) and any(max(v) == 255 for v in stronger)


def test_recolouring_is_what_it_says():
    x = torch.tensor([[10.0, 100.0, 190.0]]).view(1, 3, 1, 1) / 255
    got = data.recolour(x, torch.tensor([[2, 0, 1]]), torch.tensor([1.5]))
    assert (got * 255).flatten().round().tolist() == [235, 0, 100]  # 100 + 1.5 (190, 10, 100 - 100), -35 is 0
    same = data.recolour(x, torch.tensor([[0, 1, 2]]), torch.tensor([1.0]))
    assert torch.allclose(same, x, atol=1e-6)


def test_without_shares_nothing_more_is_drawn_from_the_seed(three):
    """Losses of a seed stay what they were before there were shares: four numbers a crop, in this order."""
    whole, rng = data.Crops([str(three)], 64, 3), np.random.default_rng(3)
    whole.batch(20, 64)
    for _ in range(20):
        for below in (1, 33, 33, 4, 2):
            rng.integers(below)
    assert whole.rng.bit_generator.state == rng.bit_generator.state


def test_drawn_crops_come_again_for_a_seed(folder):
    first, again, other = (crops("host", folder, data.Mix(0.5, 0.5), seed)(12, 64) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.parametrize("shares, name", [((-0.1, 0), "drawn"), ((0, 1.5), "colour"), ((float("nan"), 0), "drawn")])
def test_a_share_is_from_none_to_all(shares, name):
    with pytest.raises(ValueError, match=f"{name}: expected a share from 0 to 1"):
        data.Mix(*shares)
