"""A lane's memory, with a device made up: what a GPU is asked for, in which order, and that batches stay right."""

from contextlib import nullcontext

import pytest
import torch
from conftest import textured

import ckbd
from ckbd.codec import zone
from ckbd.codec.decoder import Decoder
from ckbd.pipeline import lanes
from ckbd.pipeline.lanes import Lane

CPU = torch.device("cpu")


@pytest.fixture
def pretend(monkeypatch):
    """Streams, events and pinned memory that only note what is done with them."""
    done = []

    class Event:
        def __init__(self, blocking):
            assert blocking, "who waits lets others have the processor"

        def record(self, stream):
            done.append(("record", stream))

        def synchronize(self):
            done.append(("wait",))

    empty = torch.empty

    def pinned(*shape, pin_memory=False, **options):
        if pin_memory:
            done.append(("pin", *shape, options["dtype"]))
        return empty(*shape, **options)

    monkeypatch.setattr(torch.cuda, "Stream", lambda device: f"stream of {device}")
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: done.append(("on", stream)) or nullcontext())
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(lanes.torch, "empty", pinned)
    return done


def lane_of_a_gpu():
    lane = Lane(torch.device("cuda", 0))
    lane.device = CPU  # where its tensors really are
    return lane


def test_memory_is_pinned_once_and_grows_by_powers_of_two(pretend):
    lane = lane_of_a_gpu()
    first = lane.host("k", 100, torch.uint8)
    assert first.numel() == 100 and pretend == [("pin", 128, torch.uint8)]
    assert lane.host("k", 128, torch.uint8).data_ptr() == first.data_ptr()
    assert lane.host("k", 60, torch.uint8).data_ptr() == first.data_ptr() and len(pretend) == 1
    assert lane.host("r", 60, torch.int8).data_ptr() != first.data_ptr()
    assert lane.host("k", 129, torch.uint8).data_ptr() != first.data_ptr()
    assert [one[1] for one in pretend] == [128, 64, 256]


def test_what_comes_down_is_waited_for(pretend):
    lane = lane_of_a_gpu()
    x = torch.arange(24, dtype=torch.uint8).view(2, 3, 4)
    flat = lane.down("k", x)
    assert torch.equal(flat, x.view(-1)) and flat.data_ptr() != x.data_ptr()
    assert pretend == [("pin", 32, torch.uint8), ("record", "stream of cuda:0"), ("wait",)]


def test_on_a_cpu_nothing_is_copied(pretend):
    lane = Lane(CPU)
    x = torch.arange(6)
    assert lane.up(x) is x and lane.down("k", x).data_ptr() == x.data_ptr()
    lane.wait()
    with lane.working():
        pass
    assert pretend == []


def test_batches_one_after_the_other_in_the_same_memory(pretend, tiny, monkeypatch):
    """Larger and smaller ones by turns, with streams that fail between them."""
    d = tiny.decoder
    exact = zone.Kernels(d.model.layers, d.device, backend="torch")
    options = {"device": d.device, "team": d.team, "max_pixels": d.max_pixels, "products": d.renderer.products}
    made = Decoder(d.model, exact, d.tables, **options)
    codec = ckbd.Codec(tiny.encoder, made, d.team, d.device)
    codec._decoding.parallel = 1
    codec._decoding.lanes = lanes.Lanes(CPU, 0)
    codec._decoding.lanes.give(lane_of_a_gpu())
    streams = tiny.encode(
        [textured(h, w, i) for i, (h, w) in enumerate([(64, 64), (200, 170), (1, 1), (70, 300)])], 90
    )
    want = [torch.from_numpy(p.rgb) for p in tiny.decode_pictures(streams)]
    order = [0, 1, 2, 3, 2, 1, 0, 3, 3]
    given = [streams[i] for i in order]
    given[4] = given[4][:-1]
    for count in (1, 2, 4):
        out = [x for _, x in codec.decode_iter(given, layout="HWC", batch_count=count, on_error="yield")]
        for n, (x, i) in enumerate(zip(out, order, strict=True)):
            assert isinstance(x, ckbd.FormatError) if n == 4 else torch.equal(x, want[i])
    waits = [one for one in pretend if one == ("wait",)]
    batches = [one for one in pretend if one[0] == "on"]
    # Of each batch two for k and one at its end; of the one that is nothing but the broken stream the last alone.
    assert len(batches) == 9 + 5 + 3 and len(waits) == 3 * len(batches) - 2
