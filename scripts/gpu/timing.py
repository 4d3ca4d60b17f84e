"""How long work on torch's current GPU takes: calls are captured in a CUDA graph, so that Python's time is not in the interval. Knows no kernel."""

import time

import torch


def captured(calls, stream_of):
    """A graph of the calls, after one run of them outside of it, in which kernels are loaded and scratch is taken.
    stream_of(stream): tells the caller the stream to enqueue on, a cudaStream_t."""
    graph, side = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    try:
        with torch.cuda.stream(side):
            stream_of(side.cuda_stream)
            for call in calls:
                call()
            side.synchronize()
            with torch.cuda.graph(graph, stream=side):
                for call in calls:
                    call()
    finally:
        stream_of(torch.cuda.current_stream().cuda_stream)
    return graph


def _events(run, repeats):
    """Median microseconds between events around `run`."""
    times = []
    for _ in range(repeats):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run()
        end.record()
        times.append((begin, end))
    torch.cuda.synchronize()
    times = sorted(1e3 * a.elapsed_time(b) for a, b in times)
    return times[len(times) // 2]


def graph_us(graph, repeats=15):
    for _ in range(3):
        graph.replay()
    return _events(graph.replay, repeats)


def queued_us(run, repeats=4):
    """Microseconds of GPU time and of the host's time for `run`, enqueued while the GPU sleeps, so that it never waits for Python."""
    run()
    torch.cuda.synchronize()
    began = time.perf_counter()
    run()
    host = time.perf_counter() - began
    torch.cuda.synchronize()
    torch.cuda._sleep(int(2e9 * min(1.0, 0.005 + 2 * repeats * host)))  # cycles, of at most 2 GHz
    return _events(run, repeats), 1e6 * host


def per_call_us(calls, stream_of, repeats=15):
    """Microseconds of each of the calls, which take turns, in a graph; where they cannot be captured, behind a busy queue."""
    try:
        return graph_us(captured(calls, stream_of), repeats) / len(calls)
    except RuntimeError as error:
        print(f"not captured: {error}", flush=True)
        torch.cuda.synchronize()
        return queued_us(lambda: [call() for call in calls], 3)[0] / len(calls)
