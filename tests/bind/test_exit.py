"""The interpreter ends while daemon threads are inside the modules: quietly, and whatever they hold."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import ckbd

SCRIPT = """
import os, sys, threading, time
import numpy as np
from rans_cases import TABLES, make_phase, make_z
from ckbd import _ans, _passes, _rans

rng = np.random.default_rng(1)
n = 200_000
z, (k, r) = make_z(rng, 2000), make_phase(rng, n)
coded = _rans.encode(TABLES, z, [(k, r)])
rows = np.tile(np.array([[0, 30000, 60000, 65000, 65536]], np.int32), (3000, 1))
ans = _ans.Tables(rows, rows[:, 0] + 5, rows[:, 0].copy())
symbols = np.zeros((4, n), np.int32)
streams = _ans.encode_batch(ans, symbols, symbols)
shared = _ans.Encoder()
sites = np.zeros((2000, 20, 12), np.uint8)
taps, sums = np.zeros((4, 3), np.int32), np.zeros((20_000, 48), np.int32)
outside = np.zeros(12, np.uint8)

def images():
    return [(*coded, np.empty_like(z), [(k, np.empty_like(r))]) for _ in range(4)]

def steps():
    made = [_rans.Decoder(TABLES, coded[0], phases=1, **dict(zip(("lanes_log2", "skip_max", "tail"), coded[1:])))
            for _ in range(3)]
    _rans.z_batch(made, [np.empty_like(z) for _ in made])
    _rans.phase_batch(made, [k for _ in made], [np.empty_like(r) for _ in made])

def batch():
    bad = [bytes(n) for _ in range(40)]
    _rans.Batch(TABLES, bad, model=bytes(6), channels=3, max_pixels=1 << 30).z(np.zeros(0, np.int16))

def pushed():
    shared.push(ans, symbols[0], symbols[0])
    shared.flush()

def refused():
    try:
        _rans.encode(TABLES, z, [(k + np.uint8(64 * (np.arange(n) == n - 1)), r)])
    except ValueError:
        pass

CALLS = {
    "encode": lambda: _rans.encode(TABLES, z, [(k, r)]),
    "encode_batch": lambda: _rans.encode_batch(TABLES, [(z, [(k, r)])] * 4),
    "decode_batch": lambda: _rans.decode_batch(TABLES, images()),
    "steps": steps,
    "batch": batch,
    "refused": refused,
    "crc32c": lambda: _rans.crc32c(symbols.view(np.uint8).ravel()),
    "ans tables": lambda: _ans.Tables(rows, rows[:, 0] + 5, rows[:, 0].copy()),
    "ans encode_batch": lambda: _ans.encode_batch(ans, symbols, symbols),
    "ans decode_batch": lambda: _ans.decode_batch(ans, streams, symbols, np.empty_like(symbols)),
    "ans pushed": pushed,
    "ans symbols_of": lambda: _ans.symbols_of(np.zeros(n, np.float32), None, np.empty(n, np.int32)),
    "gather": lambda: _passes.gather(sites, 2000, taps, outside, (0, 2000), np.empty((40_000, 48), np.uint8)),
    "requantise": lambda: _passes.requantise(sums, sums[0], sums[0], np.empty((20_000, 48), np.uint8)),
}

def loop(call):
    while True:
        call()

class Sequence:
    # Of Python's own code, which takes a while, so that most threads are in here when the end comes.
    def __init__(self, *items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        for _ in range(200):
            pass
        return self.items[i]

class Tensor:
    data_ptr = None

    def numpy(self):
        for _ in range(500):
            pass
        return k[:8]

five, tensor = Sequence(0, 30000, 60000, 65000, 65536), Tensor()
pair = z[:4], Sequence(*[(tensor, Sequence(k[:8], k[:8].view(np.int8))[1])] * 20)
lists = Sequence(*[0] * 50), Sequence(*[0] * 50), Sequence(*[five] * 3), Sequence(5, 5, 5), Sequence(0, 0, 0)
CALLS["ans sequences"] = lambda: _ans.RansEncoder().encode_with_indexes(*lists)
CALLS["sequences"] = lambda: _rans.encode_batch(TABLES, Sequence(*[pair] * 10))

class Late:
    # Runs while the interpreter ends, on the thread that ends it, when there are no globals any more, and gets the
    # GIL back, and the mutex. All others that want it meanwhile do not.
    def __init__(self):
        self.held = shared.push, shared.flush, (ans, symbols[0], symbols[0]), _rans.crc32c, streams[0] * 9

    def __del__(self, clock=time.monotonic, write=os.write):
        push, flush, pushed, crc32c, data = self.held
        end = clock() + 0.3
        while clock() < end:
            push(*pushed)
            flush()
            crc32c(data)
        write(1, b"late")

sys.late = Late()
for name in sys.argv[1].split(",") * 2:
    threading.Thread(target=loop, args=(CALLS[name],), daemon=True).start()
time.sleep(0.15)
"""

KINDS = [
    "encode,encode_batch,decode_batch,steps",
    "batch,refused,crc32c",
    "ans tables,ans encode_batch,ans decode_batch,ans pushed,ans symbols_of",
    "gather,requantise",
    "ans sequences,sequences",
    "encode_batch,steps,ans pushed,ans decode_batch,gather",
]


@pytest.mark.parametrize("kinds", KINDS)
def test_daemon_threads_at_exit(kinds, tmp_path):
    paths = [str(Path(ckbd.__file__).parent.parent), *(p for p in sys.path if p.endswith("cases"))]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    for _ in range(2):
        command = [sys.executable, "-c", SCRIPT, kinds]
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stdout, done.stderr) == (0, "late", "")
