"""Training throughput at equal architecture: pictures a second of complete steps (batch, loss, backward, clipping, optimiser, average).

    python benchmarks/peers_train.py [--rounds 7] [--steps 4] [--batch 64 128] [--json FILE] [--plot FILE.png]

Every contender in every setting in its own process; rounds in turns; medians. 32 x 32 pictures without labels, already in memory.
`unstir` is a network of the peers' parameters and FLOPs within 5 %, with AdamW like theirs; `unstir-quick` is the recipe as it is
(patches of 2 x 2, Muon), which is not an equal architecture. For these two "installed" is what `unstir train` does by itself: it sets
the allocator, and takes bf16 where the processor has it; "allocator" is fp32.
"""

from __future__ import annotations

import dataclasses
import json
import time

from chart import bar_chart
from comparison import comparison_jobs, comparison_parser
from contenders import SETTINGS, contender
from pictures import padded, read
from report import heading, table, write_json
from rounds import Job, Measured, Result, interleaved, serve

WARM_UP = 3


def work(job: Job) -> None:
    """In the worker: builds the contender and times blocks of steps."""
    made = contender(job["contender"])
    tuning = dataclasses.replace(made.tuned(), batch_size=job["batch"])
    one = made(padded(read(job["data"])[:10_000], job["size"]), SETTINGS[job["setting"]], tuning)
    about = {"parameters": one.parameters, "flops": one.flops()}
    for _ in range(WARM_UP):
        one.train_step()

    def measure() -> Result:
        start = time.perf_counter()
        for _ in range(job["steps"]):
            one.train_step()  # gives the loss as a number, so a GPU is waited for
        seconds = time.perf_counter() - start
        return {"pictures_per_second": job["steps"] * job["batch"] / seconds}

    serve(measure, about)


def rows(measured: list[Measured]) -> list[list[object]]:
    """Of the table."""
    speed = "pictures_per_second"
    return [
        [
            m.name,
            m.job["batch"],
            f"{m.about['parameters'] / 1e6:.2f}",
            f"{m.about['flops'] / 1e6:.0f}",
            f"{m.median(speed):.0f}",
            f"{100 * m.spread(speed):.0f} %",
            f"{3e-9 * m.about['flops'] * m.median(speed):.0f}",
        ]
        for m in measured
    ]


def main() -> None:
    """Measures and prints."""
    parser = comparison_parser(__doc__, 7)
    parser.add_argument("--steps", type=int, default=4, help="of a round")
    parser.add_argument("--batch", type=int, nargs="+", default=[64, 128])
    options = parser.parse_args()
    if options.worker:
        return work(json.loads(options.worker))
    measured: list[Measured] = []
    for batch in options.batch:
        measured += interleaved(__file__, comparison_jobs(options, batch=batch, steps=options.steps), options.rounds)
    print(heading("Training throughput", options.data))
    header = ["contender", "batch", "M parameters", "MFLOP forward", "pictures/s", "spread", "GFLOP/s"]
    print(table(header, rows(measured)))
    bars = [m.bar("pictures_per_second", f"{m.name}, batch {m.job['batch']}") for m in measured]
    bar_chart(options.plot, "Training", "pictures/s", bars)
    write_json(options.json, [dataclasses.asdict(m) for m in measured])


if __name__ == "__main__":
    main()
