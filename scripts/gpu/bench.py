"""How fast kernels are against what the same GPU reaches in the same run: a copy, torch's bf16 product, torch's int4 product and
torch's attention. Times are medians of CUDA events around single calls, which take turns over copies of their weights or cache
that together exceed the L2 cache several times. Ends with one line of JSON."""

import ctypes
import json
import math
import struct

import torch
from packing import INT4
from table import TAKE, Attention, Epilogue, GpuMatrix, Scratch

COLD = 1 << 30  # bytes that turns go over


def median_us(calls, repeats=60):
    """Calls in turn; three rounds to warm up."""
    for i in range(3 * min(len(calls), 10)):
        calls[i % len(calls)]()
    times = []
    for i in range(repeats):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        calls[i % len(calls)]()
        end.record()
        times.append((begin, end))
    torch.cuda.synchronize()
    times = sorted(1e3 * a.elapsed_time(b) for a, b in times)
    return times[len(times) // 2]


def limits():
    a, b = (torch.empty(COLD // 2, dtype=torch.uint8, device="cuda") for _ in range(2))
    copy = 2 * a.numel() / median_us([lambda: a.copy_(b)], 20) / 1e6
    x, w = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    return {"copy_tb_s": copy, "bf16_tflop_s": 2 * 8192**3 / median_us([lambda: x @ w.T], 20) / 1e6}


class Pool:
    """Scratch that is kept and handed out again with each call, as a device's allocator would."""

    def __init__(self):
        self.given, self.at = {}, 0

    def take(self, n):
        key = (self.at, n)
        self.at += 1
        if key not in self.given:
            self.given[key] = torch.empty(n, dtype=torch.uint8, device="cuda")
        return self.given[key].data_ptr()


def int4_matrix(n, k, group=128):
    """A packed matrix of random nibbles; its scales and zeros are small f16 numbers."""
    groups, strips = k // group, n // 16
    tile = torch.randint(0, 256, (strips, groups, 16 * group // 2 + 64), dtype=torch.uint8, device="cuda")
    tile[:, :, -64:] = torch.full((strips, groups, 32), 0.01, dtype=torch.float16, device="cuda").view(torch.uint8)
    header = struct.pack("<4i4q4i", 0x4B505653, INT4, 0, 0, n, k, strips, groups * (16 * group // 2 + 64), group, 0, 0, 2)
    g = GpuMatrix()
    ctypes.memmove(ctypes.byref(g), header, 64)
    g.body = tile.data_ptr()
    return g, tile


def torch_int4(n, k, rows):
    """torch's own int4 product on random weights, or None where this torch has none."""
    try:
        x = torch.randn(rows, k, device="cuda", dtype=torch.bfloat16)
        copies = max(2, COLD // (n * k // 2))
        packed = [torch._convert_weight_to_int4pack(torch.randint(0, 256, (n, k // 2), dtype=torch.uint8, device="cuda"), 8) for _ in range(copies)]
        scales = torch.full((k // 128, n, 2), 0.01, device="cuda", dtype=torch.bfloat16)
        return median_us([lambda w=w: torch._weight_int4pack_mm(x, w, 128, scales) for w in packed])
    except (AttributeError, RuntimeError, TypeError) as error:
        print(f"torch's int4 product: {error}")
        return None


def linear(gpu, scratch, n, k, rows):
    matrices = [int4_matrix(n, k) for _ in range(max(2, COLD // (n * k // 2)))]
    x, y = torch.randn(rows, k, device="cuda"), torch.empty(rows, n, device="cuda")
    call = lambda m: scratch(lambda s: gpu.call("linear", s, x.data_ptr(), k, rows, m, Epilogue(), y.data_ptr(), n, -1))
    return median_us([lambda m=m: call(m) for m, _ in matrices], 60 if rows < 64 else 12)


def attention(gpu, scratch, length=32768, share=0.1, heads=28, kv_heads=4, c=128):
    """One query over a tenth of a bf16 cache; ours reads rows through a list, torch's a gathered copy made beforehand."""
    count = int(length * share)
    copies = max(2, COLD // (4 * kv_heads * count * c))
    q = torch.randn(1, heads, c, device="cuda")
    out, ours, theirs, kept = torch.empty(1, heads * c, device="cuda"), [], [], []
    for _ in range(min(copies, 40)):
        kv = torch.randn(2, kv_heads, length, c, device="cuda", dtype=torch.bfloat16)
        rows = torch.randperm(length, device="cuda")[:count].sort().values
        dense = kv[:, :, rows].contiguous()
        listed = rows.to(torch.int32)
        a = Attention()
        a.q, a.q_ld, a.t, a.heads, a.kv_heads, a.c = q.data_ptr(), heads * c, 1, heads, kv_heads, c
        a.rows.k, a.rows.v, a.rows.stride, a.rows.bf16 = kv[0].data_ptr(), kv[1].data_ptr(), 2 * c, 1
        a.rows.rows, a.rows.n_rows, a.rows.tail = listed.data_ptr(), count, length
        a.head_stride, a.visible, a.causal, a.scale = length * c * 2, count, True, 1 / math.sqrt(c)
        a.out, a.out_ld = out.data_ptr(), heads * c
        kept.append((kv, listed, dense))
        ours.append(lambda a=a: scratch(lambda s: gpu.call("attend", s, a)))
        half = q.to(torch.bfloat16).view(1, heads, 1, c)
        theirs.append(lambda d=dense: torch.nn.functional.scaled_dot_product_attention(half, d[0][None], d[1][None], enable_gqa=True))
    try:
        reference = median_us(theirs)
    except (TypeError, RuntimeError) as error:
        print(f"torch's attention: {error}")
        reference = None
    return median_us(ours), reference, 4 * kv_heads * count * c


def bench(gpu):
    pool = Pool()
    take = TAKE(lambda _, n: pool.take(max(n, 1)))

    def scratch(call):
        pool.at = 0
        call(Scratch(take, None))

    result = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__, **limits()}
    for n, k in [(4096, 11008), (3584, 18944)]:
        ours, theirs, size = linear(gpu, scratch, n, k, 1), torch_int4(n, k, 1), n * k * 0.53125
        result[f"int4 {n}x{k}, 1 row"] = {"us": ours, "torch_us": theirs, "of_copy": size / ours / 1e6 / result["copy_tb_s"]}
    ours, flops = linear(gpu, scratch, 4096, 11008, 4096), 2 * 4096 * 4096 * 11008
    result["int4 4096x11008, 4096 rows"] = {
        "us": ours, "torch_us": torch_int4(4096, 11008, 4096), "of_bf16": flops / ours / 1e6 / result["bf16_tflop_s"]}
    ours, theirs, size = attention(gpu, scratch)
    result["attention, 10 % of 32768 rows, 28/4 heads of 128"] = {
        "us": ours, "torch_us": theirs, "of_copy": size / ours / 1e6 / result["copy_tb_s"]}
    error = gpu.error()
    if error:
        result["error"] = error
    print(json.dumps(result), flush=True)
