"""The kernels on a GPU: the CPU's stored bits, floats that depend on nothing but their own image, graphs,
torch.compile, the codec from bytes to latents. `make gpu-test` runs it; tests named test_small_... run under
compute-sanitizer too.
"""

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import kernel_cases as cases
import numpy as np
import pytest
import torch
from conftest import GROUPED, TINY, textured, tiny_model

import ckbd
from ckbd import kernels
from ckbd.kernels import BackendError, Lattice, configs, tune
from ckbd.kernels.configs import CONFIGS
from ckbd.kernels.lattice import blanks
from ckbd.model import file as modelfile
from ckbd.model.config import Config

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "interpreter")]

import vectors  # noqa: E402
from choices import own_choices  # noqa: E402, F401
from test_triton import in_float64  # noqa: E402

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

INTEGER = CONFIGS[torch.int8]
LAYERS = tuple(c for c in INTEGER if c.form == "layers")
FLOATS = (torch.float32, torch.float16)


# Integers: every bit of the CPU's


@pytest.mark.parametrize("config", [*INTEGER, None], ids=str)
@pytest.mark.parametrize("case", vectors.PHASES, ids=str)
def test_phase_gives_the_stored_bits(case, config):
    assert vectors.digests(case, "cuda", "triton", config) == vectors.stored()[str(case)]


@pytest.mark.parametrize("config", [*LAYERS, None], ids=str)
@pytest.mark.parametrize("case", vectors.HYPERS, ids=str)
def test_convolution_gives_the_stored_bits(case, config):
    assert vectors.digests(case, "cuda", "triton", config) == vectors.stored()[str(case)]


@pytest.mark.parametrize("case", vectors.POINTWISE, ids=str)
def test_pointwise_kernels_give_the_stored_bits(case):
    assert vectors.digests(case, "cuda", "triton") == vectors.stored()[str(case)]


@pytest.mark.parametrize(
    "case", [vectors.PHASES[0], vectors.PHASES[-1], vectors.HYPERS[0], vectors.POINTWISE[0]], ids=str
)
def test_the_twin_gives_the_stored_bits_on_the_gpu_too(case):
    assert vectors.digests(case, "cuda", "torch") == vectors.stored()[str(case)]


SMALL = [case for case in vectors.PHASES if case.sizes in ("odd", "mixed") and case.widths in cases.WIDTHS[:3]]


@pytest.mark.parametrize("config", INTEGER, ids=str)
@pytest.mark.parametrize("case", SMALL, ids=str)
def test_small_phase(case, config):
    assert vectors.digests(case, "cuda", "triton", config) == vectors.stored()[str(case)]


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_small_float_phase(dtype):
    net, lattice = vectors.moved(cases.floats(vectors.FLOAT_WIDTHS[0], dtype), "cuda"), cases.lattice("mixed", 1)
    psi, context = (cases.activations((lattice.sites, n), dtype=dtype).cuda() for n in (net.C, net.M))
    results = []
    for config in CONFIGS[dtype]:
        acc = kernels.project(psi, net, config=config if config.form == "layers" else None)
        results.append([t for c in (None, context) for t in kernels.phase(acc, c, net, lattice, config=config)])
    assert all(torch.equal(a, b) for other in results for a, b in zip(results[0], other, strict=True))


def test_small_convolution_and_pointwise():
    for case in (vectors.HYPERS[2], vectors.HYPERS[3], vectors.POINTWISE[-1], vectors.POINTWISE[0]):
        for config in LAYERS if isinstance(case, vectors.Hyper) else (None,):
            assert vectors.digests(case, "cuda", "triton", config) == vectors.stored()[str(case)]


@pytest.mark.parametrize("config", INTEGER, ids=str)
def test_the_same_again_and_again(config):
    """A race shows now and then."""
    net, lattice = vectors.moved(cases.integers(vectors.CHENG)[0], "cuda"), Lattice(((48, 64),) * 2 + ((7, 5),))
    acc = kernels.project(cases.activations((lattice.sites, 384)).cuda(), net)
    context = cases.activations((lattice.sites, net.M), 1).cuda()
    first = kernels.phase(acc, context, net, lattice, config=config)
    for _ in range(100):
        again = kernels.phase(acc, context, net, lattice, config=config)
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


# Floats: one order of summation


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("widths", [vectors.FLOAT_WIDTHS[1], vectors.CHENG], ids=str)
def test_floats_depend_on_neither_batch_nor_tile_nor_form(widths, dtype):
    net = vectors.moved(cases.floats(widths, dtype, thresholds=False), "cuda")
    sizes = ((4, 7), (33, 50), (3, 5), (4, 7))
    lattice = Lattice(sizes)
    g = torch.Generator().manual_seed(3)
    psi, context = (torch.randn(lattice.sites, n, generator=g).to("cuda", dtype) for n in (widths.C, widths.M))
    layers = [c for c in CONFIGS[dtype] if c.form == "layers"]
    acc, *others = (kernels.project(psi, net, config=config) for config in layers)
    assert all(torch.equal(acc, other) for other in others)
    for c in (None, context):
        first, *others = (kernels.phase(acc, c, net, lattice, config=config) for config in CONFIGS[dtype])
        assert all(torch.equal(a, b) for other in others for a, b in zip(first, other, strict=True))
        for size, rows in zip(sizes, lattice.rows(), strict=True):
            alone = kernels.project(psi[rows], net, config=layers[-1])
            assert torch.equal(alone, acc[rows])
            part = None if c is None else c[rows]
            for config in CONFIGS[dtype]:
                out = kernels.phase(alone, part, net, Lattice((size,)), config=config)
                assert all(torch.equal(a[rows], b) for a, b in zip(first, out, strict=True))


@pytest.mark.parametrize("p", [0, 1])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_floats_within_their_rounding(dtype, p):
    """A sum of n float32 terms is off by at most n eps sum |a b|; tensor cores may cut bits instead of rounding them,
    which doubles eps and some. Two activations are rounded to the network's dtype.
    """
    widths = vectors.FLOAT_WIDTHS[2]
    net, lattice = cases.floats(widths, dtype, thresholds=False), Lattice(((9, 15),))
    g = torch.Generator().manual_seed(4)
    psi = torch.randn(lattice.sites, widths.C, generator=g).to(dtype)
    context = torch.randn(lattice.sites, widths.M, generator=g).to(dtype) if p else None
    there = vectors.moved(net, "cuda")
    acc = kernels.project(psi.cuda(), there)
    got = kernels.phase(acc, None if context is None else context.cuda(), there, lattice)
    terms = (widths.C + 12 * widths.M) + widths.H1 + widths.H2 + 8
    eps = 1.01 * terms * 2**-24 if dtype == torch.float32 else 8 * terms * 2**-24 + 2.02 * 2**-11
    wanted = in_float64(net, psi, context, lattice)
    seen = ~blanks(lattice, p)
    for value, want, size in zip(got, wanted, in_float64(net, psi, context, lattice, True), strict=True):
        assert ((value.cpu() - want).abs() <= eps * size + 1e-6)[seen].all()
        assert (value.cpu()[~seen] == 0).all()


# How programs use them


def two_phases(net, lattice, psi, r, y_hat, context):
    """project, phase 0, assemble, phase 1, assemble: what a decoder launches."""
    acc = kernels.project(psi, net)
    n = lattice.sites
    mean0, k0 = kernels.phase(acc[:n], None, net, lattice)
    kernels.assemble(r[0], mean0, lattice, 0, y_hat, context)
    mean1, k1 = kernels.phase(acc[n:], context, net, lattice)
    kernels.assemble(r[1], mean1, lattice, 1, y_hat)
    return mean0, k0, mean1, k1


def decoder_inputs(seed=0):
    net, lattice = vectors.moved(cases.integers(cases.WIDTHS[0])[0], "cuda"), cases.lattice("mixed")
    g = torch.Generator().manual_seed(seed)
    psi = cases.activations((2 * lattice.sites, 32), seed).cuda()
    r = torch.randint(-90, 91, (2, lattice.sites, net.M), generator=g).to("cuda", torch.int16)
    y_hat = torch.zeros(lattice.full_sites, net.M, dtype=torch.int16, device="cuda")
    context = torch.zeros(lattice.sites, net.M, dtype=torch.int8, device="cuda")
    return net, lattice, psi, r, y_hat, context


def test_a_graph_replays_to_the_same_bits():
    net, lattice, psi, r, y_hat, context = decoder_inputs()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        two_phases(net, lattice, psi, r, y_hat, context)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = two_phases(net, lattice, psi, r, y_hat, context)
    for seed in (0, 1, 2):
        _, _, new_psi, new_r, want_y, want_context = decoder_inputs(seed)
        want = two_phases(net, lattice, new_psi, new_r, want_y, want_context)
        psi.copy_(new_psi)
        r.copy_(new_r)
        graph.replay()
        assert all(torch.equal(a, b) for a, b in zip(want, captured, strict=True))
        assert torch.equal(y_hat, want_y) and torch.equal(context, want_context)


def test_capture_without_a_call_before_takes_the_first_config():
    """Nothing may be measured while a graph is captured; Triton's compilation is no work on the device."""
    net, lattice, psi, r, y_hat, context = decoder_inputs()
    plan = {"config": INTEGER[0]}
    acc = kernels.project(psi, net, **plan)[: lattice.sites]
    want = kernels.phase(acc, None, net, lattice, **plan)  # compiled, tile table made; nothing chosen
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        got = kernels.phase(acc, None, net, lattice)
    graph.replay()
    assert all(torch.equal(a, b) for a, b in zip(want, got, strict=True))


def test_forms_asked_for_in_turn_are_measured_once(monkeypatch):
    """Asking for a form must neither forget what was chosen among all nor be measured again."""
    net, lattice, psi, *_ = decoder_inputs()
    acc = kernels.project(psi, net)[: lattice.sites]
    for config in (None, "layers", "fused"):
        kernels.phase(acc, None, net, lattice, config=config)
    monkeypatch.setattr(tune, "fastest", lambda *args: pytest.fail("measured again"))
    for config in (None, "layers", "fused"):
        kernels.phase(acc, None, net, lattice, config=config)


# Inductor imports torch.utils.mkldnn, whose script methods PyTorch itself deprecates: 14 warnings that are not ours.
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")
def test_compiled_whole():
    net, lattice, psi, r, y_hat, context = decoder_inputs()
    want = two_phases(net, lattice, psi, r, y_hat, context)
    want_y = y_hat.clone()
    compiled = torch.compile(two_phases, fullgraph=True)
    y_hat.zero_()
    got = compiled(net, lattice, psi, r, y_hat, context)
    assert all(torch.equal(a, b) for a, b in zip(want, got, strict=True)) and torch.equal(y_hat, want_y)


def test_another_stream():
    net, lattice, psi, r, y_hat, context = decoder_inputs()
    want = two_phases(net, lattice, psi, r, y_hat, context)
    torch.cuda.synchronize()
    with torch.cuda.stream(torch.cuda.Stream()):
        got = two_phases(net, lattice, psi, r, torch.zeros_like(y_hat), torch.zeros_like(context))
        torch.cuda.current_stream().synchronize()
    assert all(torch.equal(a, b) for a, b in zip(want, got, strict=True))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_a_device_that_is_not_the_current_one():
    case = vectors.PHASES[0]
    with torch.cuda.device(0):
        assert vectors.digests(case, "cuda:1", "triton") == vectors.stored()[str(case)]


def test_tensors_on_two_devices_are_refused():
    net, lattice, psi, *_ = decoder_inputs()
    with pytest.raises(ValueError, match="psi: expected a tensor on cuda"):
        kernels.project(psi.cpu(), net)
    with pytest.raises(BackendError, match="backend: expected one of"):
        kernels.project(psi, net, backend="cuda")


# The codec


@pytest.fixture(scope="module")
def golden():
    folder = HERE.parent / "golden"
    streams = {
        name: (folder / f"{name}.ckbd").read_bytes() for name in ("one_pixel", "odd_size", "lowest", "highest")
    }
    return folder / "model.safetensors", streams


def test_golden_streams_decode_to_the_cpu_s_latents(golden):
    import hashlib

    path, streams = golden
    said = json.loads((path.parent / "golden.json").read_text())["streams"]
    codec = ckbd.load(path, device="cuda")
    together = codec.decode_latents(list(streams.values()))
    for (name, data), latents in zip(streams.items(), together, strict=True):
        (alone,) = codec.decode_latents([data])
        assert np.array_equal(alone, latents)
        assert hashlib.sha256(latents.astype("<i2").tobytes()).hexdigest() == said[name]["y_hat"]
    codec.decode(list(streams.values()))


@pytest.mark.parametrize("model", [TINY, GROUPED, "default"], ids=["tiny", "groups", "default"])
def test_streams_cross_between_devices(model, tmp_path):
    """Either device reads what the other wrote, to the same latents. The bytes may differ: g_a is in floats."""
    path = model
    if isinstance(model, Config):
        path = tmp_path / "tiny.safetensors"
        modelfile.save(tiny_model(config=model), path)
    codecs = [ckbd.load(path, device=device) for device in ("cpu", "cuda")]
    pictures = [textured(70, 130), textured(64, 64, 1), textured(1, 1)]
    for writer in codecs:
        for quality in (5, 70):
            streams = writer.encode(pictures, quality)
            here, there = (reader.decode_latents(streams) for reader in codecs)
            assert all(np.array_equal(a, b) for a, b in zip(here, there, strict=True))
            pixels = [[x.cpu().int() for x in one.decode_tensors(streams)] for one in codecs]
            assert all((a - b).abs().max() <= 4 for a, b in zip(*pixels, strict=True))


@pytest.mark.parametrize("model", [TINY, GROUPED], ids=["tiny", "groups"])
def test_both_backends_write_the_same_stream_on_the_gpu(model, tmp_path):
    modelfile.save(tiny_model(config=model), tmp_path / "tiny.safetensors")
    streams = []
    for backend in ("torch", "triton"):
        codec = ckbd.load(tmp_path / "tiny.safetensors", device="cuda", backend=backend)
        codec.encoder.reader = None  # of the same features: g_a is in floats
        streams.append(codec.encode([textured(70, 130)], 60))
    assert streams[0] == streams[1]


# Choosing


def test_choices_are_kept_and_read_again(tmp_path, monkeypatch):
    net, lattice, psi, *_ = decoder_inputs()
    acc = kernels.project(psi, net)[: lattice.sites]
    kernels.phase(acc, None, net, lattice)
    (file,) = Path(os.environ["CKBD_TUNE_CACHE"]).glob("kernels-*.json")
    chosen = json.loads(file.read_text())["chosen"]
    assert any(key.startswith("phase") for key in chosen) and any(key.startswith("project") for key in chosen)
    before = dict(tune._chosen)
    tune._chosen.clear()
    tune._known.clear()

    def never(*args):
        raise AssertionError("measured again")

    monkeypatch.setattr(tune, "fastest", never)
    kernels.project(psi, net)
    kernels.phase(acc, None, net, lattice)
    assert tune._chosen == before


def test_a_choice_made_in_another_process_is_taken(tmp_path):
    net, lattice, psi, *_ = decoder_inputs()
    code = (
        "import torch\nfrom ckbd.kernels import tune\nfrom ckbd.kernels.configs import CONFIGS\n"
        "device = torch.device('cuda', torch.cuda.current_device())\n"
        "name, key = tune._device_name(device), tune.among('key', CONFIGS[torch.int8])\n"
        "tune._write(name, key, CONFIGS[torch.int8][2])\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = tune.choose(psi.device, "key", INTEGER, lambda config: pytest.fail("measured again"))
    assert got == INTEGER[2]
    assert configs.candidates(torch.int8, []) == INTEGER


# Training


@pytest.mark.parametrize("bf16", [False, True], ids=["tf32", "bf16"])
def test_a_captured_step_learns_as_an_eager_one(bf16):
    from ckbd.training.data import DeviceCrops
    from ckbd.training.steps import WARM_UP, Stepper, optimisers

    losses = []
    # Compiled in bfloat16 alone, as it is trained: compiling takes its time.
    for graphs, compile in [(False, False), (True, False), (True, True)][: 3 if bf16 else 2]:
        torch.manual_seed(0)
        model, average = tiny_model().cuda(), tiny_model().cuda()
        crops = DeviceCrops([textured(160, 160)], "cuda")
        found = optimisers(model, 1e-3, 1e-3, True)
        one = Stepper(model, average, found, crops.batch, bf16=bf16, graphs=graphs, compile=compile)
        for step in range(60):
            if step in (10, 50):
                one.sums.zero_()
            one(64, 8, False, 1.0, 0.01)
            if step == 19:
                first = one.sums[0].item()
        losses.append((first, one.sums[0].item()))
        assert not graphs or isinstance(one.graphs[64, 8, False], torch.cuda.CUDAGraph) and WARM_UP < 10
    for first, last in losses:
        assert last < 0.8 * first
    for _, last in losses[1:]:
        assert abs(losses[0][1] / last - 1) < 0.2
