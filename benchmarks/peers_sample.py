"""Sampling time at equal architecture and equal steps: 64 pictures of 32 x 32 in one batch.

    python benchmarks/peers_sample.py [--rounds 5] [-n 64] [--steps 20] [--json FILE] [--plot FILE.png]

Every contender in every setting in its own process; rounds in turns; medians. Each draws by its library's own sampler from averaged
weights: lucidrains' DDIM, diffusers' DPM-Solver++(2M), unstir's DPM-Solver++(2M); all ask the network once a step, which is counted.
The weights are hardly trained, which changes no time. What "installed" means for unstir: see peers_train.py.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.module import register_module_forward_hook

from chart import bar_chart
from comparison import comparison_jobs, comparison_parser
from contenders import SETTINGS, contender
from pictures import padded, read
from report import heading, table, write_json
from rounds import Job, Measured, Result, interleaved, serve


@contextmanager
def counting(network: nn.Module) -> Iterator[list[int]]:
    """Counts the calls of networks of this kind; copies, such as averaged ones, too."""
    calls = [0]

    def count(module: nn.Module, *_: object) -> None:
        calls[0] += type(module) is type(network)

    handle = register_module_forward_hook(count)
    try:
        yield calls
    finally:
        handle.remove()


def work(job: Job) -> None:
    """In the worker: builds the contender and times its sampler."""
    made = contender(job["contender"])
    tuning = dataclasses.replace(made.tuned(), batch_size=16)
    one = made(padded(read(job["data"])[:1000], job["size"]), SETTINGS[job["setting"]], tuning)
    one.train_step()
    with counting(one.network()) as calls:
        drawn = one.sample(job["n"], job["steps"])
    assert len(drawn) == job["n"]
    batches = -(-job["n"] // 64)
    about = {"parameters": one.parameters, "flops": one.flops(), "evaluations": calls[0] / batches, "by": one.sampler}

    def measure() -> Result:
        start = time.perf_counter()
        one.sample(job["n"], job["steps"])  # gives an array on the CPU, so a GPU is waited for
        return {"seconds": time.perf_counter() - start}

    serve(measure, about)


def rows(measured: list[Measured]) -> list[list[object]]:
    """Of the table."""
    return [
        [
            m.name,
            m.about["by"],
            f"{m.about['evaluations']:g}",
            f"{m.about['flops'] / 1e6:.0f}",
            f"{m.median('seconds'):.2f}",
            f"{100 * m.spread('seconds'):.0f} %",
            f"{1e-9 * m.about['flops'] * m.about['evaluations'] * m.job['n'] / m.median('seconds'):.0f}",
        ]
        for m in measured
    ]


def main() -> None:
    """Measures and prints."""
    parser = comparison_parser(__doc__, 5)
    parser.add_argument("-n", type=int, default=64)
    parser.add_argument("--steps", type=int, nargs="+", default=[20])
    options = parser.parse_args()
    if options.worker:
        return work(json.loads(options.worker))
    jobs = [job for steps in options.steps for job in comparison_jobs(options, steps=steps, n=options.n)]
    measured = interleaved(__file__, jobs, options.rounds)
    print(heading(f"Sampling {options.n} pictures", options.data))
    header = ["contender", "sampler", "evaluations", "MFLOP each", "seconds", "spread", "GFLOP/s"]
    print(table(header, rows(measured)))
    bars = [m.bar("seconds", f"{m.name}, {m.about['by']} {m.job['steps']}") for m in measured]
    bar_chart(options.plot, f"Sampling {options.n} pictures", "seconds", bars)
    write_json(options.json, [dataclasses.asdict(m) for m in measured])


if __name__ == "__main__":
    main()
