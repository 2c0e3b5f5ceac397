"""Where models are found: by name, in the folders of CKBD_MODELS, by the identity that a stream names."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import tiny_model
from safetensors.numpy import save_file

import ckbd
from ckbd.light.decoder import Decoder
from ckbd.model import arrays, library, places
from ckbd.model import file as modelfile


@pytest.fixture
def shelves(tmp_path, monkeypatch, tiny_path):
    """Two folders of CKBD_MODELS, the second with the tiny model in it."""
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir(), second.mkdir()
    shutil.copy(tiny_path, second / "tiny.safetensors")
    monkeypatch.setenv("CKBD_MODELS", os.pathsep.join([str(first), "", str(tmp_path / "nowhere"), str(second)]))
    return first, second


def test_names_and_paths(shelves, tmp_path, monkeypatch):
    first, second = shelves
    assert places.find("default") == places.find("small") == places.shipped()[0] / "small.safetensors"
    assert places.find("tiny") == second / "tiny.safetensors"
    shutil.copy(second / "tiny.safetensors", first / "tiny.safetensors")
    assert places.find("tiny") == first / "tiny.safetensors", "in their order"
    shutil.copy(second / "tiny.safetensors", first / "small.safetensors")
    assert places.find("small").parent == places.shipped()[0], "what ships comes first"
    assert places.find(first / "small.safetensors").parent == first
    assert [path.name for path in places.files()][-3:] == [
        "small.safetensors",
        "tiny.safetensors",
        "tiny.safetensors",
    ]
    monkeypatch.chdir(first)
    assert places.find("tiny.safetensors").samefile(first / "tiny.safetensors"), "a suffix makes it a path"
    for wrong in ("nobody", "first/tiny", "other.safetensors", tmp_path, tmp_path / "first"):
        with pytest.raises(FileNotFoundError, match=r"no such file or model \(known: small, base, visual, tiny\)"):
            places.find(wrong)
    monkeypatch.setenv("CKBD_MODELS", "")
    assert places.folders() == places.shipped() and len(places.shipped()) == 1


def test_identities_of_all_kinds_of_files(golden):
    names = {path.stem: library.identity_of(path).hex() for path in places.files()}
    assert names["model"] == "3e2db019b0d6" and set(names) > {"small", "base", "variant_raster", "variant_mixture"}
    assert len(set(names.values())) == len(names)
    for path in places.files():
        read, _ = arrays.read(path, arrays.format_of(path))
        assert arrays.identity(read) == arrays.identity_of(path), "all of the file gives the same"
        assert (
            library.holder(arrays.identity_of(path)) == path and library.name_of(arrays.identity(read)) == path.stem
        )


@pytest.fixture
def golden(monkeypatch):
    monkeypatch.setenv("CKBD_MODELS", str(Path(__file__).parent.parent / "golden"))


def test_a_file_that_changes_is_read_again(shelves, tiny_path):
    first, _ = shelves
    path, own = first / "changing.safetensors", library.identity_of(tiny_path)
    other = modelfile.save(tiny_model(1), path)
    assert library.holder(other) == path and library.name_of(other) == "changing"
    shutil.copy(tiny_path, path)
    os.utime(path, ns=(1, 1))
    assert library.holder(other) is None and library.holder(own) == path
    path.unlink()
    assert library.holder(own).parent.name == "second"


def test_files_that_are_no_models_are_passed_over_and_named(shelves, tiny_path):
    first, _ = shelves
    (first / "a.safetensors").write_bytes(b"nothing")
    (first / "b.safetensors").write_bytes(tiny_path.read_bytes()[:-1])
    (first / "c.safetensors").mkdir()
    save_file({}, first / "d.safetensors")
    assert library.holder(library.identity_of(tiny_path)).parent.name == "second"
    assert library.holder(bytes(6)) is None and library.name_of(bytes(6)) is None
    line = library.known()
    assert (
        "small (ed2c3ab4f0c5)" in line
        and "tiny (" in line
        and f"CKBD_MODELS is {os.environ['CKBD_MODELS']!r}" in line
    )
    unread = [str(first / f"{name}.safetensors") for name in "abd"] + [f"{first.parent / 'nowhere'} (no folder)"]
    assert line.endswith("not readable: " + ", ".join(unread))


@pytest.mark.parametrize(
    "shape, what", [([0, 1 << 32], "sides below 2"), ([1] * 65, "shape"), ([0, 1 << 62, 9], "shape")]
)
def test_shapes_that_no_array_has_are_refused_by_name(shelves, tiny_path, shape, what):
    path, data = shelves[0] / "odd.safetensors", tiny_path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    end = len(data) - 8 - size
    one = {"dtype": "I8", "shape": shape, "data_offsets": [end, end + (0 not in shape)]}
    header = json.dumps(json.loads(data[8 : 8 + size]) | {"exact.more": one}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + data[8 + size :] + bytes(0 not in shape))
    for reader in (arrays.identity_of, Decoder, ckbd.load):
        with pytest.raises(ValueError, match=f"^model file: tensor exact.more: .*{what}"):
            reader(path)
    assert library.identity_of(path) is None and str(path) in library.known()
    assert library.holder(library.identity_of(tiny_path)) == shelves[1] / "tiny.safetensors"


@pytest.mark.parametrize("changes", [{"format": "x" * 10**5}, {"config": json.dumps({"M": "x" * 10**5})}])
def test_a_refusal_is_one_short_line_whatever_the_file_says(tmp_path, changes):
    for name in ("model", "variant_raster"):
        data = (Path(__file__).parent.parent / "golden" / f"{name}.safetensors").read_bytes()
        size = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + size])
        text = json.dumps(header | {"__metadata__": header["__metadata__"] | changes}).encode()
        (tmp_path / "m.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data[8 + size :])
        with pytest.raises(ValueError, match="^(model .*expected format|config: M)") as refusal:
            ckbd.load(tmp_path / "m.safetensors")
        assert len(str(refusal.value)) < 1000


@pytest.mark.parametrize("name", ["exact.\u00e9", "g_a.\n", "more\x7f"])
def test_names_are_printable_ascii(tmp_path, tiny_path, name):
    read, config = arrays.read(tiny_path, arrays.FORMAT)
    path, metadata = tmp_path / "m.safetensors", {"format": arrays.FORMAT, "config": config}
    save_file(read | {name: np.zeros(3, np.int8)}, path, metadata)
    for reader in (Decoder, ckbd.load):
        with pytest.raises(
            ValueError, match="^model file: tensor '.*: expected a name in printable ASCII"
        ) as refusal:
            reader(path)
        assert str(refusal.value).isprintable()
    save_file(read | {"more": np.zeros(3, np.int8)}, path, metadata)
    assert Decoder(path).identity == arrays.identity_of(tiny_path), "what is called otherwise is ignored"


def test_a_model_by_its_identity(shelves, tiny_path):
    own = library.identity_of(tiny_path)
    assert library.find(own.hex()) == shelves[1] / "tiny.safetensors" and library.find("tiny") == library.find(
        own.hex()
    )
    assert ckbd.load(own.hex()).model_hash == Decoder(own.hex()).identity.hex() == own.hex()
    (shelves[0] / "0123456789ab.safetensors").write_bytes(tiny_path.read_bytes())
    assert library.find("0123456789ab").name == "0123456789ab.safetensors", "a name is a name"
    with pytest.raises(FileNotFoundError, match="no such file or model"):
        library.find("ffffffffffff")


def test_without_folders(monkeypatch):
    monkeypatch.delenv("CKBD_MODELS", raising=False)
    assert library.known().endswith("; CKBD_MODELS is not set")
