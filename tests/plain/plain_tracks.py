"""A payload of version 2 read from docs/format.md, section 9, one symbol at a time; it imports nothing of ckbd."""

from math import log2

LOW = 1 << 23


class Tracks:
    """One state and one list of bytes a track. tables: name -> nested lists, as the model file has them."""

    def __init__(self, payload: bytes, count: int, tables: dict):
        self.tables, sizes, at = tables, [], 0
        for _ in range(count - 1):
            size = shift = 0
            while True:
                byte = payload[at]
                at += 1
                size |= (byte & 127) << shift
                shift += 7
                if byte < 128:
                    break
            sizes.append(size)
        sizes.append(len(payload) - at - sum(sizes))
        self.parts, self.x = [], []
        for size in sizes:
            self.x.append(int.from_bytes(payload[at : at + 4], "little"))
            assert LOW <= self.x[-1] < 1 << 31
            self.parts.append(list(payload[at + 4 : at + size]))
            at += size
        self.bits = 0.0

    def take(self, t: int, precision: int, find) -> object:
        """find(slot) -> (symbol, f, bias)."""
        x = self.x[t]
        slot = x & ((1 << precision) - 1)
        symbol, f, bias = find(slot)
        x = f * (x >> precision) + bias
        while x < LOW:
            x = x << 8 | self.parts[t].pop(0)
        self.x[t] = x
        self.bits += precision - log2(f)
        return symbol

    def escape(self, t: int) -> int:
        width = self.take(t, 4, lambda s: (s, 1, 0))
        return (1 << width) + self.take(t, width, lambda s: (s, 1, 0)) - 1

    def z(self, channel: int) -> int:
        low, size = self.tables["z.low"][channel], self.tables["z.size"][channel]

        def find(slot):
            start = 0
            for i, f in enumerate(self.tables["z.freq"][channel][: size + 1]):
                if slot < start + f:
                    return i, f, slot - start
                start += f

        i = self.take(0, 12, find)
        if i < size:
            return low + i
        u = self.escape(0)
        return low - 1 - (u - 1) // 2 if u % 2 else low + size + u // 2

    def residual(self, t: int, k: int) -> int:
        largest = self.tables["y.max"][k]

        def find(slot):
            start = 0
            for m, f in enumerate(self.tables["y.freq"][k][: largest + 2]):
                width = f if m == 0 else 2 * f
                if slot < start + width:
                    d = slot - start
                    return (0, f, d) if m == 0 else ((-1 if d % 2 else 1) * m, f, d // 2)
                start += width

        r = self.take(t, 12, find)
        if abs(r) == largest + 1:
            u = self.escape(t)
            r = r + u if r > 0 else r - u
        return r

    def mixture(self, t: int, mean: list, k: list, share: list) -> int:
        cdf, weights = self.tables["m.cdf"], [self.tables["m.share"][s] for s in share]
        radii = [self.tables["m.radius"][one] for one in k]
        centres = [(m + 8) >> 4 for m in mean]
        low = max(-1023, min(c - r for c, r in zip(centres, radii, strict=True)))
        high = min(1023, max(c + r for c, r in zip(centres, radii, strict=True)))
        n = high - low + 1

        def start(s):
            mass = 0
            for m, one, w in zip(mean, k, weights, strict=True):
                d = 16 * s - 8 - m
                up = cdf[min(8192, (abs(d) * self.tables["m.inverse"][one] + 32768) >> 16)]
                mass += w * (up if d >= 0 else (1 << 24) - up)
            return 1 + s - low + mass * (65536 - n - 2) // (sum(weights) << 24)

        def find(slot):
            if slot < start(low):
                return low - 1, start(low), slot
            if slot >= start(high + 1):
                return high + 1, 65536 - start(high + 1), slot - start(high + 1)
            s = low
            while start(s + 1) <= slot:
                s += 1
            return s, start(s + 1) - start(s), slot - start(s)

        s = self.take(t, 16, find)
        if s < low:
            return s - self.escape(t)
        return s + self.escape(t) if s > high else s

    def finish(self) -> None:
        assert all(x == LOW for x in self.x) and not any(self.parts)
