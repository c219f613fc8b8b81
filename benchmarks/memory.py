"""Peak memory of training at equal architecture and equal batch.

    python benchmarks/memory.py [--batch 64 128] [--steps 5] [--rounds 3] [--json FILE] [--plot FILE.png]

Each measurement is a process of its own, one after another. On CPUs it is the kernel's count of the most pages that were ever resident
(VmHWM), less what was resident before the network was built (the libraries, and 1,000 pictures), both given. On CUDA it is PyTorch's
count of the most memory allocated. What "installed" means for unstir: see peers_train.py. Linux only.
"""

from __future__ import annotations

import dataclasses
import gc
import json
from pathlib import Path

import torch

from chart import bar_chart
from comparison import comparison_jobs, comparison_parser
from contenders import SETTINGS, contender
from pictures import padded, read
from report import heading, table, write_json
from rounds import Job, Measured, Result, serve, worker

MIB = 2**20


def status(name: str) -> float:
    """A line of /proc/self/status in MiB: VmRSS is resident now, VmHWM the most that ever was."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:"))


def work(job: Job) -> None:
    """In the worker: how much memory some steps take."""
    made = contender(job["contender"])
    pictures = padded(read(job["data"])[:1000].copy(), job["size"])
    gc.collect()
    cuda = torch.cuda.is_available()

    def measure() -> Result:
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew at what is resident now
        baseline = status("VmRSS")
        one = made(pictures, SETTINGS[job["setting"]], dataclasses.replace(made.tuned(), batch_size=job["batch"]))
        for _ in range(job["steps"]):
            one.train_step()
        found = {"baseline": baseline, "peak": status("VmHWM"), "training": status("VmHWM") - baseline}
        if cuda:
            found["training"] = torch.cuda.max_memory_allocated() / MIB
        return found

    serve(measure, {})


def measured(jobs: list[Job], rounds: int) -> list[Measured]:
    """A fresh process for each job in each round, one at a time: others' memory is none of its business."""
    results: list[list[Result]] = [[] for _ in jobs]
    for _ in range(rounds):
        for job, found in zip(jobs, results, strict=True):
            with worker(__file__, job) as process:
                process.answer()
                found.append(process.measure())
    return [Measured(job, {}, found) for job, found in zip(jobs, results, strict=True)]


def main() -> None:
    """Measures and prints."""
    parser = comparison_parser(__doc__, 3)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--batch", type=int, nargs="+", default=[64, 128])
    options = parser.parse_args()
    if options.worker:
        return work(json.loads(options.worker))
    jobs = [job for batch in options.batch for job in comparison_jobs(options, batch=batch, steps=options.steps)]
    found = measured(jobs, options.rounds)
    print(heading("Memory of training, MiB", options.data))
    rows = [
        [m.name, m.job["batch"], f"{m.median('training'):.0f}", f"{100 * m.spread('training'):.0f} %"]
        + [f"{m.median('baseline'):.0f}", f"{m.median('peak'):.0f}"]
        for m in found
    ]
    print(table(["contender", "batch", "training", "spread", "before", "peak"], rows))
    bars = [m.bar("training", f"{m.name}, batch {m.job['batch']}") for m in found]
    bar_chart(options.plot, "Memory of training", "MiB", bars)
    write_json(options.json, [dataclasses.asdict(m) for m in found])


if __name__ == "__main__":
    main()
