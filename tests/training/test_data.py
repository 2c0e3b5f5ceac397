"""Pictures out of folders and tar files: order, windows, and what is wrong with bad ones."""

import tarfile

import numpy as np
import pytest
from conftest import textured
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
    for window in data.sample([folder], 5, 64, 0):
        assert max(window.shape[:2]) <= 64
        assert any(
            window.tobytes()
            in (
                textured(*size, i)[:, x : x + 64][y : y + 64].tobytes()
                for x in range(max(size[1] - 63, 1))
                for y in range(max(size[0] - 63, 1))
            )
            for i, size in enumerate(SIZES)
        )


def test_a_tar_file_that_is_cut_off_is_named(tar, tmp_path):
    whole = tar.read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[: len(whole) // 2])
    with pytest.raises((ValueError, EOFError), match="cut.tar|ended before"):
        list(data.pictures(tmp_path / "cut.tar"))
