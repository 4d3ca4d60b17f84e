#!/usr/bin/env python3
"""Every entry of the table of GPU kernels against plain references with fresh random inputs:

    scripts/gpu/test_kernels.py LIBRARY               on a GPU; needs torch and numpy
    scripts/gpu/test_kernels.py LIBRARY --standin     on the stand-in for CUDA; needs numpy and a library made by
        g++ -std=c++17 -O2 -ffp-contract=off -pthread -DSV_STANDIN -Itesting/cuda -fPIC -shared -x c++ native/cuda/*.cu testing/cuda/*.cc -o LIBRARY
    (the one that set-up makes does not show the stand-in's own functions)

--only 'ENTRY ...' tests some entries, --seed N repeats a run. One line per entry, then `N passed, N failed`, then a line of JSON.
Buffers are poisoned and lie between canaries, unless --bare leaves the ends of buffers to compute-sanitizer. References are in
double precision: torch's on the GPU, numpy's on the stand-in.
"""

import argparse
import ctypes
import json
import math
import os
import sys
import traceback

import numpy as np
from packing import BF16, F16, F32, from_bf16, pack_float, pack_int4, pack_int8, to_bf16
from table import ENTRIES, Attention, Buffer, Delta, DeltaSequence, Epilogue, Gpu, Sampling, longs

xp = np  # or torch: references use what both have
random = np.random.default_rng()


def ref(x):
    """A reference's operand in double precision."""
    return np.asarray(x, np.float64) if xp is np else xp.as_tensor(np.array(x, np.float64), device="cuda")


def host(x):
    return x if isinstance(x, np.ndarray) else x.cpu().numpy()


def noise(*shape, scale=1.0):
    return (random.standard_normal(shape) * scale).astype(np.float32)


def near(actual, expected, tolerance, what):
    """By sum (a - e)^2 / sum e^2, which NaN fails."""
    a, e = np.asarray(actual, np.float64), host(expected)
    assert a.shape == e.shape, f"{what}: shape {a.shape} instead of {e.shape}"
    size = (e**2).sum()
    error = ((a - e) ** 2).sum() / (size if size else 1)
    assert error <= tolerance, f"{what}: NMSE {error} is more than {tolerance}"


def equal(actual, expected, what):
    expected = np.asarray(expected)
    assert actual.tobytes() == expected.astype(actual.dtype).tobytes(), f"{what}: other bits"


def strided(x, ld):
    """Rows with ld floats from one to the next, NaN between them."""
    out = np.full((x.shape[0], ld), np.nan, np.float32)
    out[:, : x.shape[1]] = x
    return out


# --- rows ------------------------------------------------------------------------------------------------------------


def test_rms_norm(gpu):
    for rows, d, heads in [(1, 1, 1), (3, 33, 1), (17, 896, 1), (2, 3584, 1), (5, 128, 7), (1, 72, 3)]:
        x, w, width = noise(rows, heads * d) + 3, 1 + noise(d, scale=0.2), heads * d
        y = gpu.empty((rows, width + 4))
        gpu.call("rms_norm", gpu.put(strided(x, width + 3)), width + 3, gpu.put(w), gpu.put([1e-5]), rows, d, y, width + 4, heads)
        r = ref(x.reshape(rows * heads, d))
        expected = r / ((r * r).mean(-1)[:, None] + 1e-5) ** 0.5 * ref(w)
        near(y.get()[:, :width].reshape(rows * heads, d), expected, 1e-11, f"{rows} x {heads} x {d}")
        assert np.isnan(y.get()[:, width:]).all(), "wrote between rows"


def test_layer_norm(gpu):
    for rows, d in [(1, 2), (3, 33), (17, 1152), (2, 4097)]:
        x, w, b = noise(rows, d) + 10, 1 + noise(d, scale=0.2), noise(d)
        y = gpu.empty((rows, d + 4))
        gpu.call("layer_norm", gpu.put(strided(x, d + 3)), d + 3, gpu.put(w), gpu.put(b), gpu.put([1e-6]), rows, d, y, d + 4)
        r = ref(x)
        r = r - r.mean(-1)[:, None]
        near(y.get()[:, :d], r / ((r * r).mean(-1)[:, None] + 1e-6) ** 0.5 * ref(w) + ref(b), 1e-9, f"{rows} x {d}")


def test_rope(gpu):
    for t, heads, c in [(1, 1, 2), (5, 3, 64), (3, 28, 128), (2, 2, 80)]:
        x, angle, ld = noise(t, heads * c), noise(t, c // 2, scale=3), heads * c + 5
        y = gpu.empty((t, ld + 1))
        cos, sin = np.cos(angle), np.sin(angle)
        gpu.call("rope", gpu.put(strided(x, ld)), ld, gpu.put(cos), gpu.put(sin), t, heads, c, c // 2, y, ld + 1)
        a, b = ref(x.reshape(t, heads, 2, c // 2)[:, :, 0]), ref(x.reshape(t, heads, 2, c // 2)[:, :, 1])
        u, v = ref(cos)[:, None], ref(sin)[:, None]
        got = y.get()[:, : heads * c].reshape(t, heads, 2, c // 2)
        near(got[:, :, 0], a * u - b * v, 1e-11, "first halves")
        near(got[:, :, 1], b * u + a * v, 1e-11, "second halves")


def test_gated_mul(gpu):
    for rows, n in [(1, 1), (3, 33), (17, 896)]:
        gate, x, y = noise(rows, n), noise(rows, n), gpu.empty((rows, n + 4))
        gpu.call("gated_mul", gpu.put(strided(gate, n + 3)), n + 3, gpu.put(strided(x, n + 1)), n + 1, rows, n, 4, y, n + 4)
        near(y.get()[:, :n], ACTIVATIONS[4](ref(gate)) * ref(x), 1e-11, f"{rows} x {n}")
        assert np.isnan(y.get()[:, n:]).all(), "wrote between rows"


def test_add_rows(gpu):
    for rows, d in [(1, 1), (3, 33), (17, 896)]:
        a, b, y = noise(rows, d), noise(rows, d), gpu.empty((rows, d + 4))
        gpu.call("add_rows", gpu.put(strided(a, d + 3)), d + 3, gpu.put(strided(b, d + 1)), d + 1, rows, d, y, d + 4)
        equal(y.get()[:, :d].copy(), a + b, f"{rows} x {d}")
        assert np.isnan(y.get()[:, d:]).all(), "wrote between rows"


# --- matrices --------------------------------------------------------------------------------------------------------


def matrix_of(kind, n, k, parts=1):
    w = [noise(n, k, scale=1 / math.sqrt(k)) for _ in range(parts)]
    if kind in ("f32", "f16", "bf16"):
        return pack_float({"f32": F32, "f16": F16, "bf16": BF16}[kind], w)
    if kind == "int8":
        return pack_int8(random.integers(-128, 128, (n, k)).astype(np.int8), random.uniform(0.5, 2, n) / 100 / math.sqrt(k))
    group = int(kind.split()[1])
    groups = -(-k // group)
    some = lambda low, high: random.uniform(low, high, (n, groups)).astype(np.float32)
    scaled = "zero" in kind
    four = [(random.integers(0, 16, (n, k)).astype(np.uint8), some(0.1, 0.4) / math.sqrt(k),
             some(-2, 0) / math.sqrt(k) if scaled else np.round(some(0, 15))) for _ in range(parts)]
    return pack_int4(four, group, int("bf16" in kind), int(scaled), 1 if "fast" in kind else 2)


KINDS = {"f32": 1e-10, "f16": 1e-10, "bf16": 1e-10, "int8": 1e-4, "int4 128": 1e-8, "int4 64 bf16": 1e-8, "int4 32 zero": 1e-8,
         "int4 128 fast": 1e-4}
ACTIVATIONS = {0: lambda x: x, 4: lambda x: x / (1 + xp.exp(-x))}  # none, silu


def test_linear(gpu):
    for kind, tolerance in KINDS.items():
        for rows, n, k in [(1, 33, 128), (2, 16, 200), (17, 80, 133), (65, 97, 256), (129, 48, 64)]:
            for gated in [False, True] if kind != "int8" else [False]:
                m = matrix_of(kind, n, k, 2 if gated else 1)
                x, bias, scale, residual = noise(rows, k), noise(2 if gated else 1, n), 1 + noise(n, scale=0.2), noise(rows, n)
                kind_of = int(random.choice([0, 4]))
                epilogue = Epilogue(gpu.put(bias).pointer, kind_of, gpu.put(scale).pointer, gpu.put(strided(residual, n + 1)).pointer, n + 1)
                y = gpu.empty((rows, n + 3))
                gpu.call("linear", gpu.scratch, gpu.put(strided(x, k + 2)), k + 2, rows, gpu.matrix(m), epilogue, y, n + 3, -1)
                product = [xp.einsum("rk,nk->rn", ref(x), ref(w)) for w in m.logical()]
                expected = ACTIVATIONS[kind_of](product[0] + ref(bias[0]))
                if gated:
                    expected = expected * (product[1] + ref(bias[1]))
                expected = expected * ref(scale) + ref(residual)
                near(y.get()[:, :n], expected, tolerance * (10 if gated else 1), f"{kind}, {rows} x {n} x {k}{', gated' if gated else ''}")
                assert np.isnan(y.get()[:, n:]).all(), "wrote between rows"
    rows_alone(gpu)
    m = matrix_of("bf16", 64, 32)
    x, y = noise(3, 32), gpu.empty((3, 64))
    gpu.call("linear", gpu.scratch, gpu.put(x), 32, 3, gpu.matrix(m), Epilogue(), y, 64, 2)
    near(y.get()[:, :32], xp.einsum("rk,nk->rn", ref(x), ref(m.logical()[0][:32])), 1e-10, "leading strips")
    assert np.isnan(y.get()[:, 32:]).all(), "wrote beyond the leading strips"


def rows_alone(gpu):
    """A row's bits depend neither on the rows that are computed with it nor on the run."""
    for kind in KINDS:
        n, k = 80, 640
        m, x = gpu.matrix(matrix_of(kind, n, k)), noise(65, k)

        def product(rows):
            y = gpu.empty((rows, n))
            gpu.call("linear", gpu.scratch, gpu.put(x[:rows]), k, rows, m, Epilogue(), y, n, -1)
            return y.get()

        whole = product(65)
        for rows in [1, 8, 9, 16, 17, 64]:
            equal(product(rows), whole[:rows], f"{kind}: {rows} rows alone and among 65")
        for _ in range(20 if xp is not np else 2):
            equal(product(65), whole, f"{kind}, again")


def test_gather_rows(gpu):
    for kind in ["f32", "f16", "bf16"]:
        m = matrix_of(kind, 71, 35)
        ids = random.integers(0, 71, 19)
        y = gpu.empty((19, 35))
        gpu.call("gather_rows", gpu.matrix(m), gpu.put(ids, np.int32), 19, y)
        equal(y.get(), m.logical()[0][ids], kind)


def test_dequantize(gpu):
    for kind in [*KINDS, "bf16 gated", "int4 128 gated"]:
        m = matrix_of(kind.replace(" gated", ""), 50, 133, 2 if "gated" in kind else 1)
        y = gpu.empty((29, 133))
        gpu.call("dequantize", gpu.matrix(m), 3, 29, y)
        near(y.get(), m.rows[3:32], 1e-13, kind)


# --- attention and the cache -----------------------------------------------------------------------------------------


def attend(gpu, q, k, v, rows, tail, visible, causal, columns, ld, softcap=0, spans=None):
    """k, v: stored rows [kv heads, capacity, c], f32 or bf16 bits; spans [t][2]."""
    t, heads, c = q.shape
    kv_heads, capacity = k.shape[:2]
    length = visible + (t - 1 if causal else 0)
    a, out, means = Attention(), gpu.empty((t, ld)), gpu.empty(length)
    a.q, a.q_ld, a.t, a.heads, a.kv_heads, a.c = gpu.put(strided(q.reshape(t, -1), ld)).pointer, ld, t, heads, kv_heads, c
    a.rows.k, a.rows.v, a.rows.stride = gpu.put(k, k.dtype).pointer, gpu.put(v, v.dtype).pointer, c * k.itemsize
    a.rows.bf16, a.rows.rows, a.rows.n_rows, a.rows.tail = int(k.itemsize == 2), gpu.put(rows, np.int32).pointer, len(rows), tail
    a.head_stride, a.visible, a.causal, a.scale = capacity * c * k.itemsize, visible, causal, 1 / math.sqrt(c)
    a.softcap, a.spans = softcap, None if spans is None else gpu.put(spans, np.int32).pointer
    a.out, a.out_ld, a.columns = out.pointer, ld, means.pointer if columns else None
    gpu.call("attend", gpu.scratch, a)
    return out.get()[:, : heads * c].reshape(t, heads, c), means.get()


def attention_reference(q, k, v, sees, softcap=0):
    """k, v [heads, n, c] in double precision, sees [t, n]: outputs [t, heads, c], and the mean of the softmax over heads and queries."""
    s = xp.einsum("thc,hnc->thn", ref(q), k) / math.sqrt(q.shape[2])
    if softcap:
        s = softcap * xp.tanh(s / softcap)
    s = s + ref(np.where(sees, 0, -1e300))[:, None]
    p = xp.exp(s - xp.amax(s, -1)[..., None])
    p = p / p.sum(-1)[..., None]
    return xp.einsum("thn,hnc->thc", p, v), p.mean(1).mean(0)


def test_attend(gpu):
    for t, heads, kv_heads, c, listed, own, causal, bf16 in [
        (1, 28, 4, 128, 300, 129, True, True), (1, 7, 1, 64, 0, 1, True, True), (2, 14, 2, 72, 127, 65, True, False),
        (17, 14, 2, 80, 63, 128, True, True), (130, 3, 3, 72, 0, 300, False, False), (5, 4, 2, 1, 64, 129, True, True),
        (600, 16, 16, 7, 0, 5, True, False), (3, 2, 1, 256, 65, 70, True, True),
    ]:
        name = f"{t} queries, {heads}/{kv_heads} x {c}, {listed} + {own} rows"
        length, tail = listed + own + (t - 1 if causal else 0), 2 * listed
        rows = np.arange(listed) * 2 + random.integers(0, 2, listed)
        order = np.concatenate([rows, tail + np.arange(length - listed)]).astype(np.int64)
        stored = np.full((2, kv_heads, tail + length, c), np.nan, np.float32)
        stored[:, :, order] = noise(2, kv_heads, length, c)
        stored = to_bf16(stored) if bf16 else stored
        kv = (from_bf16(stored) if bf16 else stored)[:, :, order]
        q = noise(t, heads, c)
        out, columns = attend(gpu, q, stored[0], stored[1], rows, tail, listed + own, causal, True, heads * c + 3)
        again = attend(gpu, q, stored[0], stored[1], rows, tail, listed + own, causal, True, heads * c)
        equal(again[0], out, name + ", again")
        equal(again[1], columns, name + ", columns again")
        k, v = (ref(np.repeat(x, heads // kv_heads, 0)) for x in kv)
        sees = np.arange(length)[None] < (listed + own + np.arange(t)[:, None] * int(causal))
        expected, means = attention_reference(q, k, v, sees)
        near(out, expected, 1e-10, name)
        near(columns, means, 1e-10, name + ", columns")
        if not causal or t > 200:
            continue
        for i in range(0, t, 4):  # alone as among others
            one, _ = attend(gpu, q[i : i + 1], stored[0], stored[1], rows, tail, listed + own + i, True, False, heads * c)
            equal(one[0], out[i], f"{name}: query {i} alone")


    for t, softcap in [(1, 0), (300, 0), (1, 5), (70, 5)]:  # windows of 100 rows, and scores with a cap
        length = 400
        q, kv, first = noise(t, 4, 80, scale=2), noise(2, 2, length, 80), np.arange(t) * 300 // t
        spans = None if softcap else np.stack([first, first + 100], 1)
        out, columns = attend(gpu, q, kv[0], kv[1], [], 0, length, False, True, 320, softcap, spans)
        sees = (np.arange(length) >= first[:, None]) & (np.arange(length) < first[:, None] + 100) | bool(softcap)
        expected, means = attention_reference(q, *(ref(np.repeat(x, 2, 0)) for x in kv), sees, softcap)
        near(out, expected, 1e-10, f"{t} queries, cap {softcap}")
        near(columns, means, 1e-10, f"{t} queries, cap {softcap}, columns")


def test_kv_write(gpu):
    for bf16 in [True, False]:
        g, c, capacity, t, at, ld = 3, 33, 11, 5, 4, 3 * 33 + 2
        kv = gpu.empty((2, g, capacity, c), np.uint16 if bf16 else np.float32)
        keys, values = noise(t, g * c), noise(t, g * c)
        keys[0, :4] = [np.nan, np.inf, -0.0, np.float32(1 + 2**-8)]
        row = c * (2 if bf16 else 4)
        gpu.call("kv_write", kv.pointer, kv.pointer + g * capacity * row, int(bf16), capacity * row, row, at,
                 gpu.put(strided(keys, ld)), gpu.put(strided(values, ld)), ld, t, g, c)
        expected = np.full((2, g, capacity, c), 0xFFFF, np.uint16) if bf16 else np.full((2, g, capacity, c), 0xFFFFFFFF, np.uint32).view(np.float32)
        both = np.stack([keys, values]).reshape(2, t, g, c).transpose(0, 2, 1, 3)
        expected[:, :, at : at + t] = to_bf16(both) if bf16 else both
        equal(kv.get(), expected, "bf16" if bf16 else "f32")


def test_kv_read(gpu):
    for bf16 in [True, False]:
        stored = noise(6, 11, 7)
        kept = to_bf16(stored) if bf16 else stored
        y = gpu.empty((6, 5, 7))
        gpu.call("kv_read", gpu.put(kept, kept.dtype), int(bf16), 6, 11, 7 * kept.itemsize, 4, 9, 7, y)
        equal(y.get(), (from_bf16(kept) if bf16 else kept)[:, 4:9], "bf16" if bf16 else "f32")


# --- states ----------------------------------------------------------------------------------------------------------


def delta_reference(sizes, x, gates, conv, a_log, dt_bias):
    """As kernels/delta.h says, one token after another: [t, value heads * dv]."""
    h, g, dk, dv, taps = sizes
    rows = np.concatenate([np.zeros((taps - 1, x.shape[1])), x.astype(np.float64)])
    mixed = sum(rows[i : i + len(x)] * conv[:, i] for i in range(taps))
    mixed = mixed / (1 + np.exp(-mixed))
    q, k = (mixed[:, i * h * dk : (i + 1) * h * dk].reshape(-1, h, dk).repeat(g // h, 1) for i in range(2))
    q, k = (m / np.sqrt((m * m).sum(-1, keepdims=True) + 1e-6) for m in (q, k))
    v = mixed[:, 2 * h * dk :].reshape(-1, g, dv)
    beta = 1 / (1 + np.exp(-gates[:, :g].astype(np.float64)))
    decay = np.exp(-np.exp(a_log.astype(np.float64)) * np.log1p(np.exp(gates[:, g:].astype(np.float64) + dt_bias)))
    state, out = np.zeros((g, dk, dv)), []
    for i in range(len(x)):
        state = state * decay[i][:, None, None]
        change = beta[i][:, None] * (v[i] - np.einsum("gkv,gk->gv", state, k[i]))
        state = state + k[i][:, :, None] * change[:, None]
        out.append(np.einsum("gkv,gk->gv", state, q[i]) / math.sqrt(dk))
    return np.stack(out).reshape(len(x), g * dv)


def test_delta_rule(gpu):
    for sizes, t in [((2, 6, 13, 21, 4), 19), ((2, 2, 40, 70, 4), 5), ((1, 2, 7, 3, 1), 4), ((3, 3, 8, 16, 3), 1)]:
        h, g, dk, dv, taps = sizes
        width, value = 2 * h * dk + g * dv, g * dv
        x, gates, conv, a_log, bias = noise(t, width), noise(t, 2 * g), noise(width, taps), noise(g), noise(g)
        strided_x, strided_gates = strided(x, width + 5), strided(gates, 2 * g + 3)
        held = [gpu.put(a) for a in (conv, a_log, bias)]

        def run(borders):
            state = gpu.put(np.zeros(g * dk * (-(-dv // 16) * 16) + (taps - 1) * width))
            out, begin = gpu.empty((t, value + 1)), 0
            for end in borders:
                d, sequence = Delta(), DeltaSequence(end - begin, state.pointer)
                for name, of in zip(("key_heads", "value_heads", "dk", "dv", "taps"), sizes):
                    setattr(d.sizes, name, of)
                d.x, d.ldx = gpu.put(strided_x[begin:end]).pointer, width + 5
                d.gates, d.ldg = gpu.put(strided_gates[begin:end]).pointer, 2 * g + 3
                d.conv, d.a_log, d.dt_bias = (b.pointer for b in held)
                d.sequences, d.count = ctypes.addressof(sequence), 1
                d.out, d.ldo = out.pointer + begin * (value + 1) * 4, value + 1
                gpu.call("delta_rule", gpu.scratch, d)
                begin = end
            return out.get()[:, :value].copy()

        whole = run([t])
        near(whole, delta_reference(sizes, x, gates, conv, a_log, bias), 1e-11, f"{sizes}, {t} rows")
        if t > 2:
            equal(run([1, 3, t]), whole, f"{sizes}, {t} rows in several calls")


# --- choosing --------------------------------------------------------------------------------------------------------


def sample_reference(x, temperature, top_k, top_p, uniform):
    """src/ops/sample.ts, with sorting; x f32."""
    f = np.float32
    order = np.lexsort((np.arange(len(x)), -x.astype(np.float64)))
    if temperature == 0:
        return int(order[0])
    z = (x - x.max()) / f(temperature)
    n = (z * f(1.44269504) + f(12582912)) - f(12582912)
    r = (z - n * f(0.693359375)) - n * f(-2.12194440e-4)
    p = np.full_like(x, f(1.9875691500e-4))
    for c in (1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1):
        p = p * r + f(c)
    p = p * (r * r) + r + f(1)
    seen = (z >= f(-23.6)) & (x >= (x[order[top_k - 1]] if 0 < top_k < len(x) else -np.inf))
    w = np.where(seen, np.floor(p.astype(np.float64) * 2.0 ** (34 + np.where(seen, n, 0))), 0)
    before = np.cumsum(w[order]) - w[order]
    w[order[before >= float(f(top_p)) * w.sum()]] = 0
    return int(np.argmax(np.cumsum(w) > float(f(uniform)) * w.sum()))


def test_sample(gpu):
    for n in [1, 33, 1025] + ([152064, 262144] if xp is not np else []):
        for x in [noise(n, scale=4), np.round(noise(n, scale=2)), np.zeros(n, np.float32)]:
            x = x.astype(np.float32)
            logits = gpu.put(x)
            for temperature, top_k, top_p in [(0, 0, 1), (1, 0, 1), (0.7, 20, 0.8), (1.5, 0, 0.9), (0.2, 5, 1)]:
                u = np.floor(random.uniform() * 2**24) / 2**24
                id_ = gpu.empty(1, np.int32)
                gpu.call("sample", gpu.scratch, logits, n, Sampling(temperature, top_k, top_p, u), id_)
                expected = sample_reference(x, temperature, top_k, top_p, u)
                assert id_.get()[0] == expected, f"{n} logits, {temperature} {top_k} {top_p} {u}: id {id_.get()[0]} instead of {expected}"
    for bad in [np.nan, np.inf]:
        x, id_ = noise(100), gpu.empty(1, np.int32)
        x[70] = bad
        gpu.call("sample", gpu.scratch, gpu.put(x), 100, Sampling(1, 0, 1, 0.5), id_)
        assert id_.get()[0] == -1, f"{bad} among logits: expected -1"


# --- elementwise and transfers ---------------------------------------------------------------------------------------


def test_binary(gpu):
    for op, f in enumerate([np.add, np.subtract, np.multiply, np.divide]):
        for a, b in [((), ()), ((5, 7), (7,)), ((3, 1, 5), (1, 4, 5)), ((2, 1, 3, 1, 5, 1), (1, 4, 1, 2, 1, 3)), ((0, 3), (3,)), ((70000,), (1,))]:
            x, z = noise(*a), noise(*b)
            expected = f(x, z)
            steps = [np.broadcast_to(o, expected.shape).strides for o in (x, z)]
            y = gpu.empty(expected.shape)
            strides = [longs([s // 4 for s in one]) for one in steps]
            gpu.call("binary", op, expected.ndim, longs(expected.shape), gpu.put(x), strides[0], gpu.put(z), strides[1], y)
            equal(y.get(), expected, f"{f.__name__} {a} {b}")


def test_copy(gpu):
    for width in [1, 2, 3, 4, 8, 16]:
        x = random.integers(0, 256, (4, 6, 5, width)).astype(np.uint8)
        part, y = x[1:4, ::2].transpose(1, 2, 0, 3), gpu.empty((3, 5, 9, width), np.uint8)
        strides = [s // width for s in part.strides[:3]]
        gpu.call("copy", 3, longs(part.shape[:3]), gpu.put(x, np.uint8).pointer + x.strides[0], longs(strides), y.pointer + 2 * width,
                 longs([45, 9, 1]), width)
        expected = np.full((3, 5, 9, width), 0xFF, np.uint8)
        expected[:, :, 2:5] = part
        equal(y.get(), expected, f"elements of {width} bytes")


def test_gather(gpu):
    for outer, n, inner, width in [(1, 7, 1, 1), (3, 5, 3, 2), (2, 9, 16, 4), (2, 4, 5, 8)]:
        x = random.integers(0, 256, (outer, n, inner * width)).astype(np.uint8)
        ids = np.array([n - 1, 0, -1, n, 0])
        y = gpu.empty((outer, 5, inner * width), np.uint8)
        gpu.call("gather", gpu.put(x, np.uint8), gpu.put(ids, np.int32), outer, n, 5, inner, width, y)
        expected = x[:, ids % n]
        expected[:, 2:4] = 0
        equal(y.get(), expected, f"{outer} x {n} x {inner} of {width} bytes")


def test_upload(gpu):
    for n in [1, 4097, 5 << 20]:
        x = random.integers(0, 256, n).astype(np.uint8)
        expected, y = x.copy(), gpu.empty(n, np.uint8)
        gpu.call("upload", y, x.ctypes.data, n)
        x[:] = 0  # its memory is free at once
        equal(y.get(), expected, f"{n} bytes")


def test_move(gpu):
    x = random.integers(0, 256, 70001).astype(np.uint8)
    y = gpu.empty(70001, np.uint8)
    gpu.call("move", y, gpu.put(x, np.uint8), 70001)
    equal(y.get(), x, "70001 bytes")


def test_last_error(gpu):
    a = Attention()
    a.t, a.heads, a.kv_heads, a.c = 1, 1, 1, 257
    gpu.call("attend", gpu.scratch, a)
    assert "256" in (gpu.error() or ""), "heads of 257 columns: expected a refusal"
    assert gpu.error() is None, "expected the error to be cleared"


def main():
    global xp, random
    options = argparse.ArgumentParser()
    options.add_argument("library")
    options.add_argument("--standin", action="store_true")
    options.add_argument("--only", help="entries, separated by spaces")
    options.add_argument("--bare", action="store_true", help="no canaries: a stray access leaves its allocation")
    options.add_argument("--seed", type=int, default=int(np.random.SeedSequence().entropy % 2**32))
    chosen = options.parse_args()
    if not chosen.standin:
        import torch as xp
    elif "GLIBC_TUNABLES" not in os.environ:  # the stand-in's shared memory is static thread-local storage
        os.environ["GLIBC_TUNABLES"] = "glibc.rtld.optional_static_tls=16777216"
        os.execv(sys.executable, [sys.executable, *sys.argv])
    random = np.random.default_rng(chosen.seed)
    gpu = Gpu(chosen.library, chosen.standin)
    print(f"seed {chosen.seed}")
    if chosen.bare:
        Buffer.MARGIN = 0
    names = [name for name, _ in ENTRIES] + ["last_error"]
    names = [name for name in names if chosen.only is None or name in chosen.only.split()]
    failed = []
    for name in names:
        try:
            globals()[f"test_{name}"](gpu)
            gpu.release()
            assert gpu.error() is None, "an error is left"
            print(f"ok {name}", flush=True)
        except Exception as error:  # one entry's failure hides no other's
            failed.append(name)
            where = traceback.extract_tb(error.__traceback__)[-1]
            print(f"FAILED {name}: {error or type(error).__name__} (line {where.lineno}); {gpu.error() or 'no CUDA error'}", flush=True)
            gpu.buffers = []
    print(f"{len(names) - len(failed)} passed, {len(failed)} failed")
    print(json.dumps({"passed": len(names) - len(failed), "failed": failed, "seed": chosen.seed}), flush=True)
    return 1 if failed or not names else 0


if __name__ == "__main__":
    np.seterr(all="ignore")
    sys.exit(main())
