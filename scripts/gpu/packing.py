"""Packed matrices as native/kernels/kernels.h, int4.h and int8.h describe them, written from those words with numpy: a second
implementation of the layout, which is what tests of kernels need. Knows no GPU."""

import struct

import numpy as np

F32, F16, BF16, INT4, INT8 = range(5)
LANES = 16


def to_bf16(x):
    """f32 -> the upper half of its bits, ties to even; NaN stays NaN."""
    u = np.ascontiguousarray(x, np.float32).view(np.uint32)
    rounded = (u + 0x7FFF + ((u >> 16) & 1)) >> 16
    return np.where(np.isnan(x), (u >> 16) | 64, rounded).astype(np.uint16)


def from_bf16(u):
    return (u.astype(np.uint32) << 16).view(np.float32)


def padded(x, rows, columns):
    out = np.zeros((rows, columns), x.dtype)
    out[: x.shape[0], : x.shape[1]] = x
    return out


def up(n, step):
    return -(-n // step) * step


def strips_of(parts):
    """Rows of one matrix, or of gate and up in turn, as [strips][16][k]."""
    split = [padded(p, up(p.shape[0], LANES), p.shape[1]).reshape(-1, LANES, p.shape[1]) for p in parts]
    return np.stack(split, 1).reshape(-1, LANES, split[0].shape[2])


class Matrix:
    """header: 64 bytes; body: strips; rows: the dequantized rows as stored, f64 [strips * 16, k]; n, k, gated."""

    def __init__(self, kind, parts, body, rows, dot_bf16=0, group=0, scale_bf16=0, zero_scaled=0, planes=0):
        self.n, self.k = parts[0].shape
        self.kind, self.gated, self.planes = kind, len(parts) == 2, planes
        self.body = np.frombuffer(body, np.uint8)
        self.rows = rows[:, : self.k].astype(np.float64)
        strips = self.rows.shape[0] // LANES
        self.header = struct.pack(
            "<4i4q4i", 0x4B505653, kind, dot_bf16, int(self.gated), self.n, self.k, strips, len(body) // strips,
            group, scale_bf16, zero_scaled, planes)

    def logical(self):
        """Gate and up, or the one matrix, f64 [n, k] each."""
        count = 2 if self.gated else 1
        blocks = self.rows.reshape(-1, count, LANES, self.k)
        return [blocks[:, i].reshape(-1, self.k)[: self.n] for i in range(count)]


def pack_float(kind, parts, dot_bf16=0):
    strips = strips_of([np.asarray(p, np.float32) for p in parts])
    strips = np.pad(strips, ((0, 0), (0, 0), (0, strips.shape[2] % 2)))
    if kind == BF16:
        stored = to_bf16(strips)
        body = stored.reshape(len(strips), LANES, -1, 2).transpose(0, 2, 1, 3)
        rows = from_bf16(stored)
    else:
        stored = strips.astype(np.float32 if kind == F32 else np.float16)
        body, rows = stored.transpose(0, 2, 1), stored
    return Matrix(kind, parts, np.ascontiguousarray(body).tobytes(), rows.reshape(-1, strips.shape[2]), dot_bf16)


def pack_int4(parts, group, scale_bf16=0, zero_scaled=0, planes=2):
    """parts: (q uint8 [n, k], scale f32 [n, groups], zero f32 [n, groups]): w = (q - z) s, or q s + sz when zero_scaled."""
    k = parts[0][0].shape[1]
    groups = up(k, group) // group
    q = strips_of([padded(p[0], p[0].shape[0], groups * group) for p in parts])
    scale, zero = strips_of([p[1] for p in parts]), strips_of([p[2] for p in parts])
    stored = to_bf16(scale) if scale_bf16 else scale.astype(np.float16).view(np.uint16)
    zero = zero.astype(np.float16)
    scale = from_bf16(stored) if scale_bf16 else stored.view(np.float16).astype(np.float32)
    body = bytearray()
    for s in range(len(q)):
        for g in range(groups):
            tile = q[s, :, g * group : (g + 1) * group].reshape(LANES, group // 4, 4).transpose(1, 0, 2)  # [quad][output][byte]
            body += (tile[: group // 8] | tile[group // 8 :] << 4).tobytes()
            body += stored[s, :, g].tobytes() + zero[s, :, g].tobytes()
    spread = lambda x: np.repeat(x.astype(np.float32), group, 2)
    values = q.astype(np.float32)
    rows = values * spread(scale) + spread(zero) if zero_scaled else (values - spread(zero)) * spread(scale)
    return Matrix(INT4, [p[0] for p in parts], bytes(body), rows.reshape(-1, groups * group), 0, group, scale_bf16, zero_scaled, planes)


def pack_int8(q, scale):
    """q int8 [n, k], scale f32 [n]: w = s q."""
    k4 = up(q.shape[1], 4)
    strips = strips_of([padded(q, q.shape[0], k4)])
    scales = padded(scale.astype(np.float32)[None], 1, len(strips) * LANES).reshape(-1, LANES)
    body = b"".join(
        strip.reshape(LANES, k4 // 4, 4).transpose(1, 0, 2).tobytes() + s.tobytes()
        + (128 * strip.astype(np.int32).sum(1)).astype(np.int32).tobytes()
        for strip, s in zip(strips, scales))
    rows = strips.astype(np.float32) * scales[:, :, None]
    return Matrix(INT8, [q], body, rows.reshape(-1, k4))
