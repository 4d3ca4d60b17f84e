#!/usr/bin/env python3
"""One decode step of a whole decoder out of the table's kernels alone, in the order of native/ops/decoder_layer.cc, without
TensorFlow: launches one by one, the same as a CUDA graph, and how long each kernel took.

    scripts/gpu/step.py LIBRARY            on a GPU, Qwen2-7B's shape, at several contexts; needs torch
    scripts/gpu/step.py LIBRARY --once     one step of two layers, for a profiler
    scripts/gpu/step.py LIBRARY --standin  a small shape on the stand-in, to try this script; needs numpy

The last line is JSON. Exit code 1: a step gave other bits the second time, or not finite numbers.
"""

import argparse
import ctypes
import json
import math
import os
import struct
import sys

import numpy as np
from packing import INT4
from table import TAKE, Attention, Epilogue, Gpu, GpuMatrix, Sampling, Scratch

# hidden, layers, ffn, heads, kv heads, head width, vocabulary
QWEN2_7B = (3584, 28, 18944, 28, 4, 128, 152064)
SMALL = (128, 2, 256, 4, 2, 32, 640)
OWN = 256  # rows of text
# visual rows in the cache, share of them that a layer reads
CONTEXTS = [(0, 1), (8192, 1), (8192, 0.1), (32768, 1), (32768, 0.1), (131072, 1), (131072, 0.1)]
GROUP, SILU = 128, 4


class OnGpu:
    """Arrays by torch; kept for the process's life."""

    def __init__(self):
        import torch

        self.torch, self.kept, self.given = torch, [], {}

    def _keep(self, tensor):
        self.kept.append(tensor)
        return tensor.data_ptr()

    def normal(self, *shape, bf16=False):
        t = self.torch
        return self._keep(t.randn(*shape, device="cuda", dtype=t.bfloat16 if bf16 else t.float32))

    def put(self, values):
        return self._keep(self.torch.from_numpy(values).cuda())

    def tiles(self, strips, groups, scale):
        t = self.torch
        body = t.randint(0, 256, (strips, groups, 8 * GROUP + 64), dtype=t.uint8, device="cuda")
        body[:, :, -64:-32] = t.full((strips, groups, 16), scale, dtype=t.float16, device="cuda").view(t.uint8)
        body[:, :, -32:] = t.full((strips, groups, 16), 7.5, dtype=t.float16, device="cuda").view(t.uint8)
        return self._keep(body)

    def scratch(self, at, n):
        if (at, n) not in self.given:
            self.given[at, n] = self._keep(self.torch.empty(max(n, 1), dtype=self.torch.uint8, device="cuda"))
        return self.given[at, n]

    def read(self, pointer, n):
        self.torch.cuda.synchronize()
        return next(x for x in self.kept if x.data_ptr() == pointer)[:n].cpu().numpy()


class OnStandin:
    """The same with numpy, in the stand-in's memory."""

    def __init__(self, gpu):
        self.gpu, self.random, self.given, self.kept = gpu, np.random.default_rng(1), {}, {}

    def put(self, values):
        buffer = self.gpu.put(values, values.dtype)
        self.kept[buffer.pointer] = buffer
        return buffer.pointer

    def normal(self, *shape, bf16=False):
        x = self.random.standard_normal(shape).astype(np.float32)
        return self.put((x.view(np.uint32) >> 16).astype(np.uint16) if bf16 else x)

    def tiles(self, strips, groups, scale):
        body = self.random.integers(0, 256, (strips, groups, 8 * GROUP + 64)).astype(np.uint8)
        body[:, :, -64:-32] = np.full((strips, groups, 16), scale, np.float16).view(np.uint8)
        body[:, :, -32:] = np.full((strips, groups, 16), 7.5, np.float16).view(np.uint8)
        return self.put(body)

    def scratch(self, at, n):
        if (at, n) not in self.given:
            self.given[at, n] = self.put(np.zeros(max(n, 1), np.uint8))
        return self.given[at, n]

    def read(self, pointer, n):
        return self.kept[pointer].get()[:n].copy()


class Decoder:
    """Random weights and a cache for `capacity` rows, on the device."""

    def __init__(self, gpu, arrays, shape, layers, capacity, planes):
        self.gpu, self.arrays, self.capacity, self.planes = gpu, arrays, capacity, planes
        self.d, _, self.f, self.heads, self.kv_heads, self.c, self.v = shape
        self.width = (self.heads + 2 * self.kv_heads) * self.c
        self.matrix_bytes = self.at = 0
        self.take = TAKE(self._taken)
        d, c, f = self.d, self.c, self.f
        self.layers = [{
            "qkv": self.matrix(self.width, d), "o": self.matrix(d, self.heads * c), "up": self.matrix(f, d, True), "down": self.matrix(d, f),
            "k": arrays.normal(self.kv_heads, capacity, c, bf16=True), "v": arrays.normal(self.kv_heads, capacity, c, bf16=True),
            "bias": arrays.normal(self.width)} for _ in range(layers)]
        self.head, self.norm, self.eps = self.matrix(self.v, d), arrays.normal(d), arrays.put(np.full(1, 1e-6, np.float32))
        self.cos, self.sin, self.start = arrays.normal(c // 2), arrays.normal(c // 2), arrays.normal(d)
        self.x, self.y, self.normed, self.hidden, self.context = (arrays.normal(d) for _ in range(5))
        self.qkv, self.mlp, self.logits = arrays.normal(self.width), arrays.normal(f), arrays.normal(self.v)
        self.id = arrays.put(np.zeros(1, np.int32))

    def _taken(self, _, n):
        self.at += 1
        return self.arrays.scratch(self.at, n)

    def scratch(self):
        self.at = 0  # one stream: each call may have the last one's
        return Scratch(self.take, None)

    def matrix(self, n, k, gated=False):
        strips, groups, tile = n // 16 * (2 if gated else 1), k // GROUP, 8 * GROUP + 64
        self.matrix_bytes += strips * groups * tile
        g = GpuMatrix()
        header = struct.pack("<4i4q4i", 0x4B505653, INT4, 0, int(gated), n, k, strips, groups * tile, GROUP, 0, 0, self.planes)
        ctypes.memmove(ctypes.byref(g), header, 64)
        g.body = self.arrays.tiles(strips, groups, 0.2 / math.sqrt(k))
        return g

    def linear(self, matrix, x, k, y, n, bias=None, residual=None, activation=0):
        epilogue = Epilogue(bias, activation, None, residual, n)
        self.gpu.call("linear", self.scratch(), x, k, 1, matrix, epilogue, y, n, -1)

    def attention(self, layer, visual, rows, listed):
        a, row = Attention(), self.c * 2
        a.q, a.q_ld, a.t, a.heads, a.kv_heads, a.c = self.qkv, self.width, 1, self.heads, self.kv_heads, self.c
        a.rows.k, a.rows.v, a.rows.stride, a.rows.bf16 = layer["k"], layer["v"], row, 1
        a.rows.rows, a.rows.n_rows, a.rows.tail = rows, listed if rows else 0, visual if rows else 0
        a.head_stride, a.visible = self.capacity * row, (listed if rows else visual) + OWN + 1
        a.causal, a.scale, a.out, a.out_ld = True, 1 / math.sqrt(self.c), self.context, self.heads * self.c
        self.gpu.call("attend", self.scratch(), a)

    def step(self, visual, rows, listed):
        """The next token after `visual` rows, of which a layer reads `listed` (rows[layer]; None: all), and OWN rows of text."""
        call, d, c, row = self.gpu.call, self.d, self.c, self.c * 2
        at, other = self.x, self.y
        call("move", at, self.start, 4 * d)
        for i, layer in enumerate(self.layers):
            call("rms_norm", at, d, self.norm, self.eps, 1, d, self.normed, d, 1)
            self.linear(layer["qkv"], self.normed, d, self.qkv, self.width, layer["bias"])
            call("rope", self.qkv, self.width, self.cos, self.sin, 1, self.heads + self.kv_heads, c, c // 2, self.qkv, self.width)
            keys = self.qkv + 4 * self.heads * c
            call("kv_write", layer["k"], layer["v"], 1, self.capacity * row, row, visual + OWN, keys, keys + 4 * self.kv_heads * c,
                 self.width, 1, self.kv_heads, c)
            self.attention(layer, visual, rows[i] if rows else None, listed)
            self.linear(layer["o"], self.context, self.heads * c, self.hidden, d, residual=at)
            call("rms_norm", self.hidden, d, self.norm, self.eps, 1, d, self.normed, d, 1)
            self.linear(layer["up"], self.normed, d, self.mlp, self.f, activation=SILU)
            self.linear(layer["down"], self.mlp, self.f, other, d, residual=self.hidden)
            at, other = other, at
        call("rms_norm", at, d, self.norm, self.eps, 1, d, self.normed, d, 1)
        self.linear(self.head, self.normed, d, self.logits, self.v)
        call("sample", self.scratch(), self.logits, self.v, Sampling(0, 0, 1, 0.5), self.id)

    def plan(self, visual, share):
        """A step as a function, and the bytes that it reads. Every layer has rows of its own."""
        listed, random = int(visual * share), np.random.default_rng(2)
        rows = None
        if share < 1:
            rows = [self.arrays.put(np.sort(random.permutation(visual)[:listed]).astype(np.int32)) for _ in self.layers]
        read = self.matrix_bytes + len(self.layers) * 4 * self.kv_heads * self.c * (listed + OWN + 1)
        return lambda: self.step(visual, rows, listed), read

    def result(self):
        return self.arrays.read(self.logits, self.v)


def twice(decoder, step):
    """The logits, and whether they are finite and a second step has the same bits."""
    step()
    first = decoder.result()
    step()
    return first, {"finite": bool(np.isfinite(first).all()), "same_bits": first.tobytes() == decoder.result().tobytes()}


def times_of_kernels(torch, graph):
    """[kernel, microseconds in all, launches], the longest first."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        graph.replay()
        torch.cuda.synchronize()
    events = [(e.key[:100], getattr(e, "self_device_time_total", 0), e.count) for e in profile.key_averages()]
    return sorted((e for e in events if e[1] > 0), key=lambda e: -e[1])[:14]


def measure(decoder, visual, share):
    import torch
    from timing import captured, graph_us, queued_us

    step, read = decoder.plan(visual, share)
    first, result = twice(decoder, step)
    result["us"], result["host_us"] = queued_us(step)
    graph = captured([step], lambda stream: setattr(decoder.gpu.memory, "stream", stream))
    result["graph_us"] = graph_us(graph)
    result["graph_same_bits"] = first.tobytes() == decoder.result().tobytes()
    result["gigabytes"], result["tb_s"] = read / 1e9, read / result["graph_us"] / 1e6
    if (visual, share) == (8192, 0.1):
        try:
            result["kernels"] = times_of_kernels(torch, graph)
        except Exception as error:  # without a profiler the rest still counts
            result["kernels"] = f"{error}"
    return result


def main():
    options = argparse.ArgumentParser()
    options.add_argument("library")
    options.add_argument("--standin", action="store_true")
    options.add_argument("--once", action="store_true")
    options.add_argument("--fast", action="store_true", help="activations of 4-bit products as one bf16")
    chosen = options.parse_args()
    if chosen.standin and "GLIBC_TUNABLES" not in os.environ:  # as in test_kernels.py
        os.environ["GLIBC_TUNABLES"] = "glibc.rtld.optional_static_tls=16777216"
        os.execv(sys.executable, [sys.executable, *sys.argv])
    gpu, planes = Gpu(chosen.library, chosen.standin), 1 if chosen.fast else 2
    contexts = [(0, 1), (300, 1), (300, 0.1)] if chosen.standin else [(8192, 0.1)] if chosen.once else CONTEXTS
    shape = SMALL if chosen.standin else QWEN2_7B
    arrays = OnStandin(gpu) if chosen.standin else OnGpu()
    decoder = Decoder(gpu, arrays, shape, 2 if chosen.once else shape[1], max(v for v, _ in contexts) + OWN + 1, planes)
    results = []
    for visual, share in contexts:
        name = {"visual": visual, "share": share}
        try:
            plain = chosen.standin or chosen.once
            results.append({**name, **(twice(decoder, decoder.plan(visual, share)[0])[1] if plain else measure(decoder, visual, share))})
        except Exception as error:  # one context's failure hides no other's
            results.append({**name, "error": f"{error or type(error).__name__}"[:200]})
        why = gpu.error()
        if why:
            results[-1]["error"] = why
        print(results[-1], flush=True)
    print(json.dumps({"shape": "small" if chosen.standin else "qwen2-7b", "planes": planes, "contexts": results}), flush=True)
    bits = ("finite", "same_bits", "graph_same_bits")
    return 1 if any("error" in r or not all(r.get(name, True) for name in bits) for r in results) else 0


if __name__ == "__main__":
    sys.exit(main())
