"""How a kernel configuration is chosen and remembered, with a clock and a device made up."""

import json
import warnings

import pytest
import torch

from ckbd.kernels import tune
from ckbd.kernels.configs import CONFIGS

# Without Triton there is nothing to choose among.
OutOfResources = pytest.importorskip("triton.runtime.errors").OutOfResources
A, B, C = CONFIGS[torch.int8][:3]
DEVICE = torch.device("cuda", 0)  # a name; nothing is put there


def refused(config):
    raise OutOfResources(300000, 232448, "shared memory")


def never(config):
    raise AssertionError("measured again")


@pytest.fixture
def folder(monkeypatch, tmp_path):
    """A device that takes as long as asked: tune.times[config] milliseconds."""
    monkeypatch.setenv("CKBD_TUNE_CACHE", str(tmp_path / "tune"))
    forget(monkeypatch)
    monkeypatch.setattr(tune, "_left", [tune.PATIENCE])
    monkeypatch.setattr(tune, "_device_name", lambda device: f"made up {device.index}")
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setattr(tune, "_milliseconds", lambda run: run())
    return tmp_path / "tune"


def test_a_choice_among_a_form_is_none_among_all(folder):
    times = {A: 1.0, B: 2.0, C: 3.0}
    assert tune.choose(DEVICE, "key", (B, C), times.__getitem__) == B
    assert tune.choose(DEVICE, "key", (A, B, C), times.__getitem__) == A
    assert tune.choose(DEVICE, "key", (B, C), never) == B  # and neither is forgotten for the other
    assert tune.choose(DEVICE, "key", (A, B, C), never) == A


def test_choices_are_of_the_sources_of_every_kernel_that_is_measured():
    """Or a changed kernel would run with what was quickest of the old one."""
    folder = tune.SHIPPED.parent
    kernels = {p.relative_to(folder).as_posix() for p in folder.rglob("*.py") if "@triton.jit" in p.read_text()}
    assert kernels - {"pointwise.py"} <= set(tune.SOURCES) and all((folder / name).is_file() for name in tune.SOURCES)


def forget(monkeypatch):
    """As another process finds it."""
    monkeypatch.setattr(tune, "_chosen", {})
    monkeypatch.setattr(tune, "_known", {})
    monkeypatch.setattr(tune, "_thorough", set())


@pytest.mark.parametrize("sites, want", [(0, 1), (1, 1), (2, 2), (3, 4), (768, 1024), (1024, 1024), (1025, 2048)])
def test_shapes_share_a_bucket_up_to_the_next_power_of_two(sites, want):
    assert tune.bucket(sites) == want


def test_the_smallest_measure_wins_and_the_first_of_equals():
    assert tune.fastest((A, B, C), {A: 3.0, B: 1.0, C: 2.0}.__getitem__) == B
    assert tune.fastest((A, B, C), {A: 1.0, B: 1.0, C: 1.0}.__getitem__) == A


def test_what_does_not_fit_is_passed_over():
    assert tune.fastest((A, B, C), lambda c: refused(c) if c == A else {B: 2.0, C: 1.0}[c]) == C


def test_if_nothing_fits_the_last_refusal_is_the_cause():
    with pytest.raises(RuntimeError, match="none of 2 kernel configurations fits this device") as raised:
        tune.fastest((A, B), refused)
    assert isinstance(raised.value.__cause__, OutOfResources)


def test_other_errors_are_not_swallowed():
    with pytest.raises(ZeroDivisionError):
        tune.fastest((A, B), lambda config: 1 / 0)


def test_a_choice_is_measured_once_and_kept(folder, monkeypatch):
    times = {A: 3.0, B: 1.0, C: 2.0}
    assert tune.choose(DEVICE, "key", (A, B, C), times.__getitem__) == B
    assert tune.choose(DEVICE, "key", (A, B, C), never) == B
    (file,) = folder.iterdir()
    assert json.loads(file.read_text())["device"] == "made up 0"
    forget(monkeypatch)
    assert tune.choose(DEVICE, "key", (A, B, C), never) == B
    assert tune.choose(DEVICE, "another", (A, B, C), {A: 1.0, B: 2.0, C: 3.0}.__getitem__) == A
    assert len(json.loads(file.read_text())["chosen"]) == 2
    assert [path.name for path in folder.iterdir()] == [file.name]  # nothing temporary is left


def test_devices_have_choices_of_their_own(folder):
    assert tune.choose(DEVICE, "key", (A, B), {A: 2.0, B: 1.0}.__getitem__) == B
    assert tune.choose(torch.device("cuda", 1), "key", (A, B), {A: 1.0, B: 2.0}.__getitem__) == A
    assert len(list(folder.iterdir())) == 2


def test_other_kernels_have_choices_of_their_own(folder, monkeypatch):
    tune.choose(DEVICE, "key", (A, B), {A: 2.0, B: 1.0}.__getitem__)
    forget(monkeypatch)
    monkeypatch.setattr(tune, "SOURCES", tune.SOURCES[:-1])
    assert tune.choose(DEVICE, "key", (A, B), {A: 1.0, B: 2.0}.__getitem__) == A


def test_a_choice_that_is_no_candidate_is_not_taken(folder):
    assert tune.choose(DEVICE, "key", (A, B), {A: 2.0, B: 1.0}.__getitem__) == B
    assert tune.choose(DEVICE, "key", (A, C), {A: 1.0, C: 2.0}.__getitem__) == A


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"chosen": 1}',
        '{"chosen": {"key": 1}}',
        '{"chosen": {"key": {"form": "fused"}}}',
        "\xff",
    ],
)
def test_a_damaged_file_is_said_to_be_and_written_anew(folder, monkeypatch, text):
    times = {A: 2.0, B: 1.0}
    tune.choose(DEVICE, "key", (A, B), times.__getitem__)
    (file,) = folder.iterdir()
    file.write_bytes(text.encode("latin-1"))
    forget(monkeypatch)
    with pytest.warns(UserWarning, match=r"kernels-[0-9a-f]{16}\.json is damaged .*measured again"):
        assert tune.choose(DEVICE, "key", (A, B), times.__getitem__) == B
    forget(monkeypatch)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert tune.choose(DEVICE, "key", (A, B), never) == B


def test_an_empty_name_keeps_nothing(folder, monkeypatch, tmp_path):
    monkeypatch.setenv("CKBD_TUNE_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    times = {A: 2.0, B: 1.0}
    assert tune.choose(DEVICE, "key", (A, B), times.__getitem__) == B
    assert tune.choose(DEVICE, "key", (A, B), never) == B
    assert list(tmp_path.iterdir()) == []
    forget(monkeypatch)
    with pytest.raises(AssertionError, match="measured again"):
        tune.choose(DEVICE, "key", (A, B), never)


def test_where_choices_are_kept(monkeypatch, tmp_path):
    monkeypatch.delenv("CKBD_TUNE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert tune.folder() == tmp_path / "ckbd"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert tune.folder() == tmp_path / "home/.cache/ckbd"


def test_a_folder_that_cannot_be_written_is_said(folder, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CKBD_TUNE_CACHE", str(tmp_path / "file" / "below"))
    with pytest.warns(UserWarning, match="kernel choices cannot be kept in .*below"):
        assert tune.choose(DEVICE, "key", (A, B), {A: 2.0, B: 1.0}.__getitem__) == B
    assert tune.choose(DEVICE, "key", (A, B), never) == B


def test_the_first_is_taken_unmeasured_where_nothing_can_be_measured(folder, monkeypatch):
    assert tune.choose(torch.device("cpu"), "key", (A, B), never) == A
    assert tune.choose(DEVICE, "key", (B,), never) == B
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    assert tune.choose(DEVICE, "key", (A, B), never) == A
    assert not folder.exists()


def test_while_capturing_an_earlier_choice_is_taken(folder, monkeypatch):
    tune.choose(DEVICE, "key", (A, B), {A: 2.0, B: 1.0}.__getitem__)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    assert tune.choose(DEVICE, "key", (A, B), never) == B


@pytest.fixture
def clock(folder, monkeypatch):
    """Every measurement takes four seconds of patience."""
    now = [0.0]

    def milliseconds(run):
        now[0] += 4.0
        return run()

    monkeypatch.setattr(tune.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(tune, "_milliseconds", milliseconds)
    return now


def test_patience_ends_and_the_next_process_goes_on(clock, folder, monkeypatch, caplog):
    times = {A: 3.0, B: 2.0, C: 1.0}
    assert tune.PATIENCE == 10.0
    assert tune.choose(DEVICE, "one", (A, B), times.__getitem__) == B and clock[0] == 8
    assert [r.message for r in caplog.records] == [
        f"ckbd measures its kernels on made up 0, once, and kept in {folder}; `ckbd warm-up` does it ahead of time"
    ]
    three = (A, B, C)
    assert tune.choose(DEVICE, "two", three, times.__getitem__) == A and clock[0] == 12, "the rest is passed over"
    assert tune.choose(DEVICE, "two", three, never) == A and tune.choose(DEVICE, "three", (B, C), never) == B
    (file,) = folder.iterdir()
    assert len(json.loads(file.read_text())["chosen"]) == 1 and len(caplog.records) == 1
    forget(monkeypatch)
    monkeypatch.setattr(tune, "_left", [tune.PATIENCE])
    assert tune.choose(DEVICE, "one", (A, B), never) == B
    with tune.thorough():
        assert tune.choose(DEVICE, "two", three, times.__getitem__) == C
        assert tune.choose(DEVICE, "three", (B, C), times.__getitem__) == C
    assert tune._left == [tune.PATIENCE] and len(json.loads(file.read_text())["chosen"]) == 3


def test_thorough_measures_what_was_passed_over_before(clock, monkeypatch):
    times = {A: 3.0, B: 2.0, C: 1.0}
    monkeypatch.setattr(tune, "_left", [0.0])
    assert tune.choose(DEVICE, "key", (A, B, C), never) == A
    with tune.thorough():
        assert tune.choose(DEVICE, "key", (A, B, C), times.__getitem__) == C
    assert tune.choose(DEVICE, "key", (A, B, C), never) == C


def test_thorough_measures_anew_what_was_measured_among_other_work(clock, folder, monkeypatch):
    assert tune.choose(DEVICE, "key", (A, B), {A: 2.0, B: 1.0}.__getitem__) == B
    with tune.thorough():
        assert tune.choose(DEVICE, "key", (A, B), {A: 1.0, B: 2.0}.__getitem__) == A
        tune._known.clear()
        assert tune.choose(DEVICE, "key", (A, B), never) == A, "once"
    assert tune.choose(DEVICE, "key", (A, B), never) == A
    forget(monkeypatch)
    assert tune.choose(DEVICE, "key", (A, B), never) == A, "the file has it"


def test_what_ships_is_not_measured(folder, monkeypatch, tmp_path):
    monkeypatch.setattr(tune, "_device_name", lambda device: "GPU, 9.0, 132 multiprocessors, triton 3.6.0")
    shipped = tmp_path / "tuned.json"
    monkeypatch.setattr(tune, "SHIPPED", shipped)
    tune._shipped.cache_clear()
    try:
        shipped.write_text("{}")
        tune.choose(DEVICE, "key", (A, B), {A: 2.0, B: 1.0}.__getitem__)
        shipped.write_text(json.dumps(tune.chosen(DEVICE)))
        assert list(json.loads(shipped.read_text())) == ["GPU, 9.0, 132 multiprocessors"]
        (file,) = folder.iterdir()
        file.unlink()
        forget(monkeypatch)
        tune._shipped.cache_clear()
        assert tune.choose(DEVICE, "key", (A, B), never) == B
        with tune.thorough():
            assert tune.choose(DEVICE, "key", (A, B), never) == B
        assert tune.choose(DEVICE, "key", (A, C), {A: 1.0, C: 2.0}.__getitem__) == A, (
            "of another choice it says nothing"
        )
    finally:
        tune._shipped.cache_clear()


def test_the_file_that_ships_holds_configs_on_offer():
    devices = json.loads(tune.SHIPPED.read_text())
    assert isinstance(devices, dict)
    offered = {config for configs in CONFIGS.values() for config in configs}
    found = {tune.Config(**value) for choices in devices.values() for value in choices.values()}
    assert found <= offered
