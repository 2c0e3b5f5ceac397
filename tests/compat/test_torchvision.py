"""ckbd.pillow beneath torchvision's data sets, which read what Pillow reads."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

import ckbd.pillow

SIZE = 64


class ToTensor:
    """As torchvision's, whose own wants more of its library than this environment can load."""

    def __call__(self, pil):
        return torch.from_numpy(np.array(pil)).permute(2, 0, 1)


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(3):
            pil = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize((SIZE, SIZE))
            pil.save(tmp_path / name / f"{i}.ckbd", quality=40)
    (tmp_path / "cat" / "note.txt").write_text("no picture")
    return tmp_path


@pytest.mark.parametrize("workers", [0, 2])
def test_image_folder(folder, workers):
    data = ImageFolder(folder, transform=ToTensor(), is_valid_file=lambda path: path.endswith(ckbd.pillow.SUFFIX))
    assert data.classes == ["cat", "dog"] and len(data) == 6
    want = [np.array(Image.open(path)) for path, _ in data.samples]
    loader = DataLoader(data, batch_size=2, num_workers=workers)
    found = [(x, label) for batch, labels in loader for x, label in zip(batch, labels, strict=True)]
    assert [int(label) for _, label in found] == [0, 0, 0, 1, 1, 1]
    for (x, _), rgb in zip(found, want, strict=True):
        assert x.shape == (3, SIZE, SIZE) and np.array_equal(x.permute(1, 2, 0).numpy(), rgb)
