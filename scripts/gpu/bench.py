#!/usr/bin/env python3
"""How fast kernels are against what the same GPU reaches in the same run: a copy, torch's bf16 product, torch's int4 product and
torch's attention:

    scripts/gpu/bench.py LIBRARY     on a GPU; needs torch

Calls take turns over copies of their weights or cache that together exceed the L2 cache several times, in a CUDA graph. Each
figure is printed when it is known; the last line is JSON with all of them, in which an error takes the place of a figure that failed.
"""

import ctypes
import json
import math
import struct
import sys

import torch
from packing import INT4
from table import TAKE, Attention, Epilogue, Gpu, GpuMatrix, Sampling, Scratch
from timing import per_call_us

COLD = 1 << 30  # bytes that turns go over
GROUP = 128


class Pool:
    """Scratch that is kept and handed out again with each call, as a device's allocator would."""

    def __init__(self):
        self.given, self.at = {}, 0
        self._take = TAKE(lambda _, n: self.take(max(n, 1)))

    def take(self, n):
        key = (self.at, n)
        self.at += 1
        if key not in self.given:
            self.given[key] = torch.empty(n, dtype=torch.uint8, device="cuda")
        return self.given[key].data_ptr()

    def scratch(self):
        """For one call. All calls are on one stream: each may have the last one's memory."""
        self.at = 0
        return Scratch(self._take, None)


def int4_matrix(n, k):
    """A packed matrix of random nibbles; its scales and zeros are small f16 numbers."""
    groups, strips, tile_bytes = k // GROUP, n // 16, 16 * GROUP // 2 + 64
    tile = torch.randint(0, 256, (strips, groups, tile_bytes), dtype=torch.uint8, device="cuda")
    tile[:, :, -64:] = torch.full((strips, groups, 32), 0.01, dtype=torch.float16, device="cuda").view(torch.uint8)
    g = GpuMatrix()
    ctypes.memmove(ctypes.byref(g), struct.pack("<4i4q4i", 0x4B505653, INT4, 0, 0, n, k, strips, groups * tile_bytes, GROUP, 0, 0, 2), 64)
    g.body = tile.data_ptr()
    return g, tile


class Bench:
    def __init__(self, gpu):
        self.gpu, self.pool, self.result = gpu, Pool(), {}

    def us(self, calls, repeats=15):
        return per_call_us(calls, lambda stream: setattr(self.gpu.memory, "stream", stream), repeats)

    def part(self, name, measure):
        try:
            self.result[name] = measure()
        except Exception as error:  # one figure's failure hides no other's
            self.result[name] = {"error": f"{error or type(error).__name__}"[:200]}
        why = self.gpu.error()
        if why:
            self.result[name]["error"] = why
        torch.cuda.empty_cache()
        print(f"{name}: {self.result[name]}", flush=True)

    def limits(self):
        a, b = (torch.empty(COLD // 2, dtype=torch.uint8, device="cuda") for _ in range(2))
        copy = 2 * a.numel() / self.us([lambda: a.copy_(b)] * 4) / 1e6
        x, w = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
        return {"copy_tb_s": copy, "bf16_tflop_s": 2 * 8192**3 / self.us([lambda: x @ w.T] * 4) / 1e6}

    def torch_int4(self, n, k, rows):
        """torch's own int4 product on random weights."""
        x = torch.randn(rows, k, device="cuda", dtype=torch.bfloat16)
        copies = max(2, COLD // (n * k // 2)) if rows == 1 else 2
        packed = [torch._convert_weight_to_int4pack(torch.randint(0, 256, (n, k // 2), dtype=torch.uint8, device="cuda"), 8) for _ in range(copies)]
        scales = torch.full((k // GROUP, n, 2), 0.01, device="cuda", dtype=torch.bfloat16)
        return {"us": self.us([lambda w=w: torch._weight_int4pack_mm(x, w, GROUP, scales) for w in packed])}

    def linear(self, n, k, rows):
        matrices = [int4_matrix(n, k) for _ in range(max(2, COLD // (n * k // 2)) if rows == 1 else 2)]
        x, y = torch.randn(rows, k, device="cuda"), torch.empty(rows, n, device="cuda")
        call = lambda m: self.gpu.call("linear", self.pool.scratch(), x.data_ptr(), k, rows, m, Epilogue(), y.data_ptr(), n, -1)
        us, limits = self.us([lambda m=m: call(m) for m, _ in matrices]), self.result["limits"]
        if rows == 1:
            return {"us": us, "of_copy": n * k * (0.5 + 4 / GROUP) / us / 1e6 / limits["copy_tb_s"]}
        return {"us": us, "of_bf16": 2 * rows * n * k / us / 1e6 / limits["bf16_tflop_s"]}

    def attention(self, length=32768, share=0.1, heads=28, kv_heads=4, c=128):
        """One query over a tenth of a bf16 cache through a list of rows, over all of it, and torch's over all of it."""
        count, cached = int(length * share), 4 * kv_heads * length * c
        q, out = torch.randn(1, heads, c, device="cuda"), torch.empty(1, heads * c, device="cuda")
        half = q.to(torch.bfloat16).view(1, heads, 1, c)
        kept, calls = [], {"listed": [], "all": [], "torch": []}
        for _ in range(max(2, COLD * 4 // cached)):
            kv = torch.randn(2, kv_heads, length, c, device="cuda", dtype=torch.bfloat16)
            rows = torch.randperm(length, device="cuda")[:count].sort().values.to(torch.int32)
            kept.append((kv, rows))
            for name, listed in [("listed", count), ("all", 0)]:
                a = Attention()
                a.q, a.q_ld, a.t, a.heads, a.kv_heads, a.c = q.data_ptr(), heads * c, 1, heads, kv_heads, c
                a.rows.k, a.rows.v, a.rows.stride, a.rows.bf16 = kv[0].data_ptr(), kv[1].data_ptr(), 2 * c, 1
                a.rows.rows, a.rows.n_rows, a.rows.tail = rows.data_ptr(), listed, length if listed else 0
                a.head_stride, a.visible, a.causal, a.scale = length * c * 2, listed or length, True, 1 / math.sqrt(c)
                a.out, a.out_ld = out.data_ptr(), heads * c
                calls[name].append(lambda a=a: self.gpu.call("attend", self.pool.scratch(), a))
            calls["torch"].append(lambda kv=kv: torch.nn.functional.scaled_dot_product_attention(half, kv[0][None], kv[1][None], enable_gqa=True))
        us = {name: self.us(calls[name]) for name in ("listed", "all")}
        copy = self.result["limits"]["copy_tb_s"]
        result = {"us": us["listed"], "of_copy": cached * count / length / us["listed"] / 1e6 / copy,
                  "all_us": us["all"], "all_of_copy": cached / us["all"] / 1e6 / copy}
        result["torch_all_us"] = self.us(calls["torch"])
        return {**result, "times_torch": result["torch_all_us"] / result["us"]}

    def sample(self, n=152064):
        x, id_ = torch.randn(n, device="cuda") * 3, torch.empty(1, dtype=torch.int32, device="cuda")
        call = lambda s: self.gpu.call("sample", self.pool.scratch(), x.data_ptr(), n, s, id_.data_ptr())
        drawn = {"greedy": Sampling(0, 0, 1, 0.5), "top_p": Sampling(1, 0, 0.9, 0.5), "top_k_top_p": Sampling(0.7, 50, 0.9, 0.5)}
        return {f"{name}_us": self.us([lambda s=s: call(s)] * 4) for name, s in drawn.items()}


def main():
    bench = Bench(Gpu(sys.argv[1], False))
    bench.part("limits", bench.limits)
    for n, k in [(4096, 11008), (3584, 18944)]:
        bench.part(f"int4 {n}x{k}, 1 row", lambda n=n, k=k: bench.linear(n, k, 1))
        bench.part(f"torch int4 {n}x{k}, 1 row", lambda n=n, k=k: bench.torch_int4(n, k, 1))
    bench.part("attention, 10 % of 32768 rows", bench.attention)
    bench.part("int4 4096x11008, 4096 rows", lambda: bench.linear(4096, 11008, 4096))
    bench.part("sample of 152064", bench.sample)
    bench.part("torch int4 4096x11008, 4096 rows", lambda: bench.torch_int4(4096, 11008, 4096))
    print(json.dumps({"gpu": torch.cuda.get_device_name(), "torch": torch.__version__, **bench.result}), flush=True)
    return 1 if any("error" in figure for name, figure in bench.result.items() if not name.startswith("torch")) else 0


if __name__ == "__main__":
    sys.exit(main())
