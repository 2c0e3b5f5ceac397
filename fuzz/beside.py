"""CompressAI's coder beside its plain twin: python fuzz/beside.py --cpu-minutes 30 --seed 0.

Case after case, each from the seed and its own number: tables of any kind, symbols and a damaged stream go through
every way of ckbd._ans and through tests/plain/plain_ans.py, which must give the same bytes and symbols, or refuse the
same argument. Then the tables change in place, for the objects that keep those of their last call. At the first
difference the case's number is printed, and the exit status is 1: --first N --cases 1 repeats it.
"""

import argparse
import random
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests/cases"), str(ROOT / "tests/plain")]

import plain_ans  # noqa: E402
from ans_cases import TOTAL, damaged, make_case, odd_row, symbol_for  # noqa: E402
from ans_ways import (  # noqa: E402
    Different,
    decode_arrays,
    decode_lists,
    encode_arrays,
    encode_lists,
    outcome,
    same,
)

from ckbd import _ans  # noqa: E402

EVERY = 30  # seconds between two lines
LEAST, MOST = -(1 << 31), (1 << 31) - 1
ENDS = (LEAST, LEAST + 1, -1, 0, 1, 2, MOST - 1, MOST)


def change(rng, case):
    """One thing of a case, in place, to what its makers would not make."""
    rows, n = len(case.cdfs), len(case.symbols)
    k, i = rng.randrange(rows), rng.randrange(n)
    kind = rng.randrange(9)
    if kind == 0:
        case.sizes[k] = rng.choice((*ENDS, len(case.cdfs[k]), len(case.cdfs[k]) + 1, len(case.cdfs[k]) - 1))
    elif kind == 1:
        case.indexes[i] = rng.choice((*ENDS, rows, rows - 1))
    elif kind == 2:
        case.offsets[k] = rng.choice((*ENDS, rng.randint(LEAST, MOST), rng.randint(-300, 300)))
    elif kind == 3:
        case.symbols[i] = rng.choice((*ENDS, rng.randint(LEAST, MOST), case.offsets[k]))
    elif kind == 4:
        case.cdfs[k][:] = rng.choice((odd_row(rng), odd_row(rng), []))
    elif kind == 5 and case.cdfs[k]:
        at = rng.randrange(len(case.cdfs[k]))
        near = case.cdfs[k][at - 1]
        entry = rng.choice((*ENDS, near, near + 1, near + TOTAL, near - TOTAL, rng.randint(LEAST, MOST)))
        case.cdfs[k][at] = plain_ans.int32(entry)
    elif kind == 6:  # a symbol near the last that can be coded
        far = rng.choice((1, -1)) * ((1 << 27) + rng.randint(-2, 2))
        case.symbols[i] = plain_ans.int32(case.offsets[k] + far + (case.sizes[k] - 2 if far > 0 else 0))
    elif kind == 7:
        case.indexes[i:] = [k] * (n - i)
    else:
        case.symbols[i] = plain_ans.int32(symbol_for(rng, max(case.sizes[k], 2), case.offsets[k]))


def stream_of(rng, case):
    """What the twin writes, or slots and digits put together, or anything; then damaged, or not."""
    stream = outcome(lambda: plain_ans.encode(case.symbols, case.indexes, *case.tables))
    if isinstance(stream, str) or rng.random() < 0.1:
        stream = rng.randbytes(rng.choice((8, 30, 300)))
    elif rng.random() < 0.1:
        stream = with_many_digits(rng, case)
    for _ in range(rng.choice((0, 1, 1, 2))):
        if stream:
            stream = damaged(rng, stream)
    return stream


def with_many_digits(rng, case):
    """Escapes of up to 15 digits, of which there may be 8."""
    state, words = plain_ans.LOW, []
    for index in reversed(case.indexes):
        row = case.cdfs[index][: case.sizes[index]]
        slot = row[-2] % TOTAL, (row[-1] - row[-2]) % TOTAL, 16
        count = rng.choice((0, 1, 7, 8, 8, rng.randrange(16)))
        steps = [(rng.choice((0, 1, 8, 15, rng.randrange(16))), 1, 4) for _ in range(count)]
        for start, freq, bits in [*steps, (count, 1, 4), slot]:
            if freq == 0:
                continue
            if state >= freq << (63 - bits):
                words.append(state % (1 << 32))
                state >>= 32
            state = ((state // freq << bits) + state % freq + start) % (1 << 64)
    return state.to_bytes(8, "little") + b"".join(word.to_bytes(4, "little") for word in reversed(words))


def check_pmf(rng, found):
    """Of any probabilities the same row, or none."""
    n = rng.choice((0, 1, 2, 5, 20, 60))
    kind, precision = rng.randrange(4), rng.choice((16, 16, 16, 0, 1, 8, 30, rng.randrange(31)))
    small = [rng.random() ** rng.choice((1, 8, 60)) for _ in range(n)]
    with np.errstate(invalid="ignore", over="ignore"):
        any_bits = np.frombuffer(rng.randbytes(4 * n), "f4").tolist()
        pmf = (small, small, any_bits, [abs(p) for p in any_bits])[kind]
        if pmf and rng.random() < 0.3:
            pmf[rng.randrange(n)] = rng.choice(
                (float("nan"), float("inf"), -1e-30, -0.0, 1e-45, 65535.9, 65536.0, 1e30)
            )
        expected = outcome(lambda: plain_ans.pmf_to_quantized_cdf(pmf, precision))
    try:
        got = _ans.pmf_to_quantized_cdf(pmf, precision)
    except ValueError:
        got = "pmf"
    same(f"pmf_to_quantized_cdf({pmf}, {precision})", got, expected)
    found["refused pmf" if expected == "pmf" else "rows made"] += 1


def lacking(rng, case):
    """A case whose lists have other lengths, as only lists may."""
    lists = [list(one) for one in case]
    for one in rng.sample(lists[1:], rng.randint(1, 2)):
        if one:
            one.pop()
    return case._replace(**dict(zip(case._fields, lists, strict=True)))


def check_case(seed, number):
    """All ways of one case; Counter of what became of it."""
    rng, found = random.Random(f"{seed} {number}"), Counter()
    case = make_case(rng, rng.choice((1, 3, 9, 17, 40)), odd=rng.choice((0, 0.1, 0.4)))
    encoder, buffered, decoder = _ans.RansEncoder(), _ans.BufferedRansEncoder(), _ans.RansDecoder()

    def count(done, expected):
        found[f"refused {expected}" if isinstance(expected, str) else done] += 1

    for time_of_use in range(rng.choice((1, 2, 3))):
        for _ in range(rng.choice((0, 0, 1, 2, 3)) if time_of_use == 0 else 1):
            change(rng, case)
        step = rng.choice((1, 2, 7, 100))
        means = np.array([rng.choice((0.0, 0.25, -3.5, rng.gauss(0, 9))) for _ in case.indexes], "f4")
        count("encoded", encode_arrays(case, step, means))
        count("encoded", encode_lists(case, step, encoder, buffered))
        stream = stream_of(rng, case)
        count("decoded", decode_arrays(stream, case, step, means))
        count("decoded", decode_lists(stream, case, step, decoder))
    if rng.random() < 0.2:
        fewer = lacking(rng, case)
        count("decoded", decode_lists(stream, fewer, step, decoder))
        if len(fewer.indexes) == len(fewer.symbols):
            count("encoded", encode_lists(fewer, step, encoder, buffered))
    check_pmf(rng, found)
    return found


def line(cases, found, began):
    counts = ", ".join(f"{count:,} {what}" for what, count in sorted(found.items()))
    return f"{cases:,} cases in {time.process_time() - began:.1f} s: {counts}"


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cpu-minutes", type=float, default=1, help="of the process, after which it ends")
    parser.add_argument("--cases", type=int, help="end after so many, whatever they take")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="the number of the first case")
    args = parser.parse_args(argv)
    began, told = time.process_time(), time.monotonic()
    found, number = Counter(), args.first
    while True:
        if number - args.first == args.cases:
            break
        if args.cases is None and time.process_time() - began > 60 * args.cpu_minutes:
            break
        try:
            found += check_case(args.seed, number)
        except Different as difference:
            print(f"case {number} of seed {args.seed}: {difference}")
            return 1
        number += 1
        if time.monotonic() - told > EVERY:
            told = time.monotonic()
            print(line(number - args.first, found, began), flush=True)
    print(line(number - args.first, found, began))
    return 0


if __name__ == "__main__":
    sys.exit(main())
