"""A slow decoder of version 2 from bytes to latents, by docs/ alone: container and exact zone of any context.

tests/plain has its parts: plain_decoder.py the reader, plain_numerics.py the layers, plain_tracks.py the payload.
"""

import numpy as np
import plain_numerics as exact
from plain_decoder import PlainError, Reader, read_sections, require
from plain_tracks import Tracks

MEAN, INTEGER = 0, 1


def load_model(path):
    """(tensors, tables as nested lists); of a file that is known to be good."""
    with exact.safe_open(path, framework="numpy") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys() if name.startswith(("exact.", "table."))}
    return tensors, {name[6:]: a.tolist() for name, a in tensors.items() if name.startswith("table.")}


def decode(stream, model, tables, max_pixels):
    """y_hat (M, H, W) int64 of a model with a hyperprior. Raises PlainError."""
    file = Reader(stream, 0, len(stream))
    require(file.take("magic", 3) == b"\xcbkb", "magic", 0, "is not CB 6B 62")
    require(file.byte("version") == 2, "version", 3, "is not 2")
    identity = file.take("model", 6)
    flags, quality, coder = file.byte("flags"), file.byte("quality"), file.byte("coder")
    value, at = {}, {}
    for name in ["width", "height", "tracks", "payload_length"] + ["section_count"] * (flags >> 1 & 1):
        at[name], value[name] = file.at, file.varint(name)
    file.crc("header_crc", 0)
    require(flags < 4, "flags", 10, "has a reserved bit set")
    require(2 <= quality <= 200, "quality", 11, f"is {quality}")
    require(coder == 0, "coder", 12, f"is {coder}")
    width, height, tracks = value["width"], value["height"], value["tracks"]
    for name in ("width", "height"):
        require(value[name] > 0, name, at[name], "is 0")
    hz, wz = -(-height // 64), -(-width // 64)
    require(0 < tracks <= min(4 * hz, 65535), "tracks", at["tracks"], f"is {tracks}")
    require(value.get("section_count", 1) > 0, "section_count", at.get("section_count"), "is 0")
    require(identity == exact.model_identity(model), "model", 4, "is another")
    require(max(width, 64) * max(height, 64) <= max_pixels, "width", at["width"], "x height is too much")
    order = model["exact.context.order"].tolist()
    require(tracks == 1 or order == [[255]], "tracks", at["tracks"], f"is {tracks} of a model with phases")
    start = file.at
    payload = file.take("payload", value["payload_length"])
    file.crc("payload_crc", start)
    read_sections(file, value.get("section_count", 0), height, width)
    require(file.at == len(stream), "file", file.at, "goes on")
    least = hz * wz * sum(np.log2(4096 / f) for f in model["table.z.freq"].max(axis=1).tolist()) * 7 / 8
    require(8 * len(payload) >= least, "payload_length", at["payload_length"], "is too short for z")
    lengths = Reader(stream, start, start + len(payload))
    total = sum(lengths.varint("track length") for _ in range(tracks - 1))
    require(total <= lengths.end - lengths.at, "track length", start, "is too much")
    try:
        reader = Tracks(payload, tracks, tables)
        y_hat = latents(model, reader, hz, wz, quality, tracks, start)
        reader.finish()
    except (AssertionError, IndexError) as error:
        raise PlainError("payload", start, f"is no such track: {error!r}") from error
    return y_hat


def latents(model, reader, hz, wz, quality, tracks, start):
    low = model["table.z.low"].tolist()
    z = np.array([reader.z(c) for _ in range(hz * wz) for c in range(len(low))])
    require(abs(z).max() <= 127, "payload", start, "holds a z out of range")
    psi = exact.hyper_synthesis(model, z.reshape(hz, wz, -1), quality)
    _, H, W = psi.shape
    mask, order = model["exact.context.mask"], model["exact.context.order"]
    prior, centring, mixture = model["exact.kind"].tolist()
    count, reach, raster = (1, 3)[mixture], len(mask) // 2, order.tolist() == [[255]]
    phase = np.ones((H, W), int) if raster else np.tile(order, (H, W))[:H, :W].astype(int)
    M = len(model["exact.output.shift"]) // count // ((prior == 2) + 1 + mixture)
    taps = [(int(u) - reach, int(v) - reach) for u, v in np.argwhere(mask)]
    y_hat, seen = np.zeros((M, H, W), np.int64), np.zeros((M, H, W), np.int64)
    for p in range(phase.max() + 1):
        for h, w in np.argwhere(phase == p).tolist():
            parts = [psi[:, h, w]]
            for dh, dw in taps:
                inside = 0 <= h + dh < H and 0 <= w + dw < W and (raster or phase[h + dh, w + dw] < p)
                parts.append(seen[:, h + dh, w + dw] if inside else np.zeros(M, np.int64))
            kinds = parameters(model, np.concatenate(parts), p, count * M, prior, mixture)
            means, ks, shares = (one.reshape(count, M).T.tolist() for one in kinds)
            for c in range(M):
                if centring == INTEGER and prior == 2:
                    symbol, mean = reader.mixture(h % tracks, means[c], ks[c], shares[c]), 0
                else:
                    symbol, mean = reader.residual(h % tracks, ks[c][0]), means[c][0]
                require(abs(symbol) <= 1023, "payload", start, f"holds {symbol}")
                y_hat[c, h, w] = 16 * symbol + mean
            seen[:, h, w] = exact.compand(y_hat[:, h, w])
    return y_hat


def parameters(model, x, phase, rows, prior, mixture):
    """Means, table indices and shares, (rows,) each."""

    def layer(name):
        return (model[f"exact.{name}.{part}"].astype(np.int64) for part in ("weight", "bias", "shift"))

    weight, bias, shift = layer("first")
    h = exact.requantise(weight @ x + bias[int(phase > 0)], shift, 0, 127)
    weight, bias, shift = layer("hidden")
    h = exact.requantise(weight @ h + bias, shift, 0, 127)
    weight, bias, shift = layer("output")
    out, nothing = weight @ h + bias, np.zeros(rows, np.int64)
    kinds = [nothing] if prior < 2 else []
    for least, most in ([(-16383, 16383)] if prior == 2 else []) + [(0, 63)] * (1 + mixture):
        at = sum(len(one) for one in kinds) - rows * (prior < 2)
        kinds.append(exact.requantise(out[at : at + rows], shift[at : at + rows], least, most))
    return [*kinds, *[nothing] * (3 - len(kinds))]
