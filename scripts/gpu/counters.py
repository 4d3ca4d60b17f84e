#!/usr/bin/env python3
"""What limits each kernel of a decode step, by the GPU's own counters: scripts/gpu/counters.py LIBRARY, on a GPU that has Nsight
Compute (ncu). The last line is JSON: {kernel: {metric: mean over its launches}}."""

import csv
import json
import subprocess
import sys
from pathlib import Path

METRICS = {
    "us": "gpu__time_duration.sum",
    "dram_percent": "dram__throughput.avg.pct_of_peak_sustained_elapsed",
    "sm_percent": "sm__throughput.avg.pct_of_peak_sustained_elapsed",
    "occupancy_percent": "sm__warps_active.avg.pct_of_peak_sustained_active",
    "tensor_percent": "sm__inst_executed_pipe_tensor.avg.pct_of_peak_sustained_active",
    "registers": "launch__registers_per_thread",
}
SCALE = {"nsecond": 1e-3, "ns": 1e-3, "usecond": 1, "us": 1, "msecond": 1e3, "ms": 1e3}


def means(text):
    """Of ncu's CSV, which has a line per launch and metric after lines of its own."""
    lines = text.splitlines()
    begin = next((i for i, line in enumerate(lines) if line.startswith('"ID"')), None)
    if begin is None:
        raise SystemExit("ncu gave no table:\n" + "\n".join(lines[-5:]))
    names, sums = {metric: name for name, metric in METRICS.items()}, {}
    for row in csv.DictReader(lines[begin:]):
        name = names.get(row["Metric Name"])
        try:
            value = float(row["Metric Value"].replace(",", "")) * SCALE.get(row["Metric Unit"], 1)
        except ValueError:
            continue  # a metric that this GPU does not have
        if name:
            sums.setdefault(row["Kernel Name"].split("(")[0], {}).setdefault(name, []).append(value)
    return {kernel: {name: round(sum(v) / len(v), 3) for name, v in each.items()} for kernel, each in sums.items()}


def main():
    command = ["ncu", "--csv", "--clock-control", "none", "--metrics", ",".join(METRICS.values()), "-k", "regex:sv::gpu|multiply|attend|merge|planes|sample|best",
               sys.executable, str(Path(__file__).with_name("step.py")), sys.argv[1], "--once"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    sys.stderr.write(done.stderr[-2000:])
    print(json.dumps(means(done.stdout)))
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
