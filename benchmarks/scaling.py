"""One process and two on this machine, over gloo, at the same global batch; and with --estimate what GPUs should do.

    python benchmarks/scaling.py [--batch 64] [--steps 60] [--rounds 3] [--json FILE]
    python benchmarks/scaling.py --estimate

Two processes share the cores that one has, so the question is not how much faster they are but what sharing costs: against two
processes that train half the batch each and never talk, the difference is the price of DistributedDataParallel and gloo; against one
process with all threads, it is what a user sees. Every measurement starts anew; rounds in turns; medians.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass

from contenders import SETTINGS
from contenders.ours import QuickUnstir
from estimate import print_estimate
from pictures import read, source_at_hand
from report import heading, table, write_json
from rounds import Job, Measured, Result
from unstir.training.devices import disband

WARM_UP = 3


@dataclass(frozen=True)
class Layout:
    """How processes share the machine.

    Args:
        processes: started together.
        together: they train one model; else each its own, on its share of the batch.
    """

    processes: int
    together: bool


LAYOUTS = {
    "1 process": Layout(1, True),
    "2 processes, one model (DDP over gloo)": Layout(2, True),
    "2 processes, a model each": Layout(2, False),
}


def work(job: Job) -> None:
    """In the worker: trains for some seconds; the main process prints pictures a second of the global batch."""
    import torch

    torch.set_num_threads(job["threads"])
    tuning = dataclasses.replace(QuickUnstir.tuned(), batch_size=job["batch"])
    one = QuickUnstir(read(job["data"])[:10_000], SETTINGS["installed"], tuning)
    for _ in range(WARM_UP):
        one.train_step()
    start = time.perf_counter()
    for _ in range(job["steps"]):
        one.train_step()
    seconds = time.perf_counter() - start
    if int(os.environ.get("RANK", 0)) == 0:
        print(json.dumps({"pictures_per_second": job["steps"] * job["batch"] / seconds}))
    disband(one.session.accelerator)


def measure(layout: Layout, job: Job, cores: int) -> Result:
    """Starts the processes and adds up what they say."""
    alone = not layout.together
    job = job | {
        "threads": max(1, cores // layout.processes),
        "batch": job["batch"] // (layout.processes if alone else 1),
    }
    command = [sys.executable]
    if layout.together and layout.processes > 1:
        command += ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(layout.processes)]
    command += [__file__, "--worker", json.dumps(job)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(job["threads"])}
    started = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        for _ in range(layout.processes if alone else 1)
    ]
    outputs = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        raise RuntimeError(f"the processes of {layout} ended with codes {[process.returncode for process in started]}")
    total = sum(json.loads(output.strip().splitlines()[-1])["pictures_per_second"] for output in outputs)
    return {"pictures_per_second": total}


def measured(job: Job, rounds: int) -> list[Measured]:
    """All layouts in turns."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    results: dict[str, list[Result]] = {name: [] for name in LAYOUTS}
    for number in range(rounds):
        for name, layout in LAYOUTS.items():
            results[name].append(measure(layout, job, cores))
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
    return [
        Measured({**job, "contender": "unstir-quick", "setting": name}, {}, found) for name, found in results.items()
    ]


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--estimate", action="store_true", help="for H200s, instead of measuring")
    parser.add_argument("--batch", type=int, default=64, help="of all processes together")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--data", default=source_at_hand())
    parser.add_argument("--json")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return work(json.loads(options.worker))
    if options.estimate:
        return print_estimate(options.json)
    found = measured({"batch": options.batch, "steps": options.steps, "data": options.data}, options.rounds)
    speed = "pictures_per_second"
    base = found[0].median(speed)
    rows = [
        [m.job["setting"], f"{m.median(speed):.0f}", f"{100 * m.spread(speed):.0f} %", f"{m.median(speed) / base:.2f}"]
        for m in found
    ]
    print(heading(f"Processes, global batch {options.batch}", options.data))
    print(table(["unstir quick", "pictures/s", "spread", "against one"], rows))
    cost = 1 - found[1].median(speed) / found[2].median(speed)
    print(f"\nTalking to each other costs {100 * cost:.1f} % (one model against a model each).")
    write_json(options.json, [dataclasses.asdict(m) for m in found])


if __name__ == "__main__":
    main()
