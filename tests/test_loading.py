"""ckbd.load, and codecs that cross into other processes."""

import concurrent.futures
import copy
import multiprocessing
import pickle
import shutil

import numpy as np
import pytest
import torch
from conftest import tiny_model

import ckbd
from ckbd.model import file as modelfile


def test_a_codec_is_pickled_as_what_loads_it_again(tiny_path, streams, want):
    codec = pickle.loads(pickle.dumps(ckbd.load(tiny_path, threads=2, max_pixels=1 << 20)))
    assert codec.team.threads == 2 and codec.decoder.max_pixels == 1 << 20
    assert torch.equal(codec.decode_tensors(streams[:1], layout="HWC")[0], want[0])
    again = copy.deepcopy(codec)
    assert again is not codec and torch.equal(again.decode_tensors(streams[:1], layout="HWC")[0], want[0])
    with pytest.raises(TypeError, match="load one in each process"):
        pickle.dumps(ckbd.Codec(codec.encoder, codec.decoder, codec.team, codec.device))


def test_a_pickle_finds_its_file_from_anywhere_and_no_other_model(tiny_path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(tiny_path, "here.safetensors")
    held = pickle.dumps(ckbd.load("here.safetensors"))
    monkeypatch.chdir("/")
    assert pickle.loads(held).model_hash == ckbd.load(tiny_path).model_hash
    other = modelfile.save(tiny_model(1), tmp_path / "here.safetensors")
    with pytest.raises(ValueError, match=f"when the codec was pickled, is {other.hex()} now"):
        pickle.loads(held)
    assert b"/" not in pickle.dumps(ckbd.load("small")).replace(b"ckbd/", b""), "a name may lie elsewhere there"


def test_what_is_seen_at_a_prompt(tiny_path):
    codec = ckbd.load(tiny_path, threads=3)
    assert repr(codec) == f"<ckbd.Codec of model {codec.model_hash} on cpu, threads 3>"
    assert set(dir(ckbd)) == {*ckbd.__all__, "__version__"} and {"load", "open", "decode"} < set(dir(ckbd))


def test_a_codec_crosses_into_a_spawned_process(tiny_path, streams, want):
    codec = ckbd.load(tiny_path, threads=1)
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        (picture,) = pool.submit(codec.decode_pictures, streams[:1]).result(120)
    assert np.array_equal(picture.rgb, want[0].numpy())
