"""Threads: who works on what changes nothing, and nobody outside notices."""

import threading
import time

import numpy as np
import pytest
import torch
from children import forks, in_child
from conftest import textured

import ckbd
from ckbd.codec import batches, machine
from ckbd.codec.machine import Team, alone, in_turn, working
from ckbd.codec.networks import strips


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_a_team_gives_results_in_order(threads):
    team = Team(threads)
    for n in (0, 1, 2, 50):
        assert team(lambda i: i * i, range(n)) == in_turn(lambda i: i * i, range(n)) == [i * i for i in range(n)]


def test_a_team_has_as_many_threads_as_it_says_also_of_parts_of_parts():
    team, lock, at_work, most, names = Team(3), threading.Lock(), 0, 0, set()

    def leaf(_):
        nonlocal at_work, most
        with lock:
            at_work += 1
            most = max(most, at_work)
            names.add(threading.get_ident())
        time.sleep(0.002)
        with lock:
            at_work -= 1

    team(lambda _: team(leaf, range(5)), range(10))
    assert most == 3 and threading.get_ident() in names
    names.clear()
    team(leaf, range(40))
    assert len(names) == 3, "permits come back"


def test_who_is_done_helps_with_parts_of_the_last():
    team, names, begun = Team(2), set(), threading.Event()

    def part(_):
        names.add(threading.get_ident())
        time.sleep(0.005)

    def item(i):
        if i == 0:
            begun.wait(5)
            return
        begun.set()
        time.sleep(0.1)  # the other has ended meanwhile
        team(part, range(10))

    team(item, range(2))
    assert len(names) == 2


def test_the_error_of_the_first_item_is_raised_and_the_team_lives_on():
    team = Team(4)

    def work(i):
        if i in (3, 7):
            raise ValueError(str(i))
        return i

    for _ in range(20):
        with pytest.raises(ValueError, match=r"3|7"):
            team(work, range(40))
        assert team(lambda i: i, range(9)) == list(range(9))
    for error in (KeyboardInterrupt, SystemExit):

        def stop(i, error=error):
            raise error

        with pytest.raises(error):
            team(stop, range(3))
    assert team._idle == 3


def test_an_interrupt_goes_before_other_errors():
    team, begun = Team(2), threading.Event()

    def work(i):
        if i == 0:
            begun.wait(5)
            raise ValueError("a stream")
        begun.set()
        time.sleep(0.05)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        team(work, range(2))
    assert team._idle == 1


def test_a_system_without_more_threads_is_worked_on_with_those_there_are(monkeypatch):
    class Full:
        def submit(self, work):
            raise RuntimeError("can't start new thread")

    team = Team(4)
    monkeypatch.setattr(machine, "_pool", Full)
    assert team(lambda i: i, range(10)) == list(range(10))


def test_helpers_share_the_callers_modes():
    team = Team(4)
    with torch.inference_mode():
        assert all(team(lambda _: time.sleep(0.001) or torch.is_inference_mode_enabled(), range(20)))
    with torch.no_grad():
        assert not any(team(lambda _: torch.is_grad_enabled(), range(20)))
    assert all(team(lambda _: torch.is_grad_enabled(), range(20)))


def test_helpers_are_alone_and_the_process_notices_nothing():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        with alone():
            assert torch.get_num_threads() == 1
            with alone():
                pass
            assert torch.get_num_threads() == 1
            inside = []
            other = threading.Thread(target=lambda: inside.append(torch.get_num_threads()))
            other.start()
            other.join()
            assert inside == [3], "another thread of the process"
        assert torch.get_num_threads() == 3
        seen = Team(4)(lambda _: time.sleep(0.005) or (threading.get_ident(), torch.get_num_threads()), range(12))
        assert {n for who, n in seen if who != threading.get_ident()} == {1}
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_a_thread_begun_while_denormals_were_flushed_does_not_keep_that():
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor has no such mode")
    try:
        threads = machine.executor(1)
        held = torch.tensor([1e-30], dtype=torch.float32)
        assert held.mul(1e-10).item() == 0
        found = threads.submit(lambda: held.mul(1e-10).item()).result()
    finally:
        torch.set_flush_denormal(False)
        machine.end(threads)
    assert found > 0


def test_want_of_memory_is_a_memory_error_and_nothing_else_is():
    cpu = torch.device("cpu")
    with pytest.raises(MemoryError, match="not enough memory for 1152921504606846976 bytes more"), working(cpu):
        torch.empty(1 << 60, dtype=torch.uint8)
    with pytest.raises(MemoryError, match="it seems: oneDNN could not create a primitive"), working(cpu):
        raise RuntimeError("could not create a primitive")
    with pytest.raises(RuntimeError, match="^a fault of ours$"), working(cpu):
        raise RuntimeError("a fault of ours")


def test_loading_and_decoding_leave_pytorchs_threads_as_they_are(tiny_path):
    before = torch.get_num_threads()
    codec = ckbd.load(tiny_path, threads=before + 1)
    codec.decode(codec.encode([textured(70, 90)]))
    assert torch.get_num_threads() == before
    with pytest.raises(ValueError, match="threads: expected at least 1, got 0"):
        ckbd.load(tiny_path, threads=0)


@forks
def test_a_child_has_threads_of_its_own():
    team = Team(3)

    def work():
        assert team(lambda i: time.sleep(0.001) or i, range(10)) == list(range(10))
        assert team._idle == 2

    assert team(lambda i: i, range(10)) == list(range(10))
    in_child(work)
    with team.member():
        in_child(work)


def test_neither_batch_nor_threads_change_a_pixel_or_a_byte(tiny, tiny_path, monkeypatch):
    """The tables of bands say what is computed; threads only where."""
    monkeypatch.setattr(strips, "BAND", 1 << 11)
    monkeypatch.setitem(batches.MAX_BATCH_PIXELS, "cpu", 1 << 14)
    sizes = [(64, 64), (1, 1), (200, 170), (60, 64), (64, 50), (90, 300)]
    pictures = [textured(h, w, i) for i, (h, w) in enumerate(sizes)]
    streams = [tiny.encode([p], 70)[0] for p in pictures]
    want = [tiny.decode_pictures([s])[0].rgb for s in streams]
    for threads in (1, 2, 5):
        codec = ckbd.load(tiny_path, threads=threads)
        alone = []  # whether g_s has one picture: what a library makes of several may be equal by chance
        real = codec.decoder.renderer.g_s
        monkeypatch.setattr(
            codec.decoder.renderer,
            "g_s",
            lambda y, *rest, real=real, alone=alone: alone.append(len(y)) or real(y, *rest),
        )
        assert codec.encode(pictures, 70) == streams
        for got, rgb in zip(codec.decode_pictures(streams), want, strict=True):
            assert np.array_equal(got.rgb, rgb)
        for got, rgb in zip(codec.decode_pictures(streams[::-1]), want[::-1], strict=True):
            assert np.array_equal(got.rgb, rgb)
        assert alone == [1] * (2 * len(streams))


def test_a_platform_without_these_libraries_still_decodes(tiny, monkeypatch):
    monkeypatch.setattr(machine, "_libraries", lambda: machine._Libraries(None, None, None))
    (data,) = tiny.encode([textured(70, 90)])
    assert tiny.decode([data])[0].size == (90, 70)
