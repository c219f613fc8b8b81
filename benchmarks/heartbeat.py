"""The binary sequences of Sohl-Dickstein et al. 2015 (section 3.1.2), learned by the bit-flip chain: their figure, and their bound.

    python benchmarks/heartbeat.py [--steps 6000] [--chain 2000] [-n 1000]

20 bits, a pulse every five of them, in one of five phases: log2(5) = 2.322 bits a sequence, and the paper's model needs 2.414.
"""

from __future__ import annotations

import argparse
import math
import time

import torch
from accelerate import Accelerator

from report import heading, table
from unstir.binomial import BitDenoiser, BitFlip, BitObjective, BitSampler, bound, heartbeats
from unstir.data import DataSpec
from unstir.networks import MLPConfig
from unstir.objectives import Batch
from unstir.samplers.grids import Uniform
from unstir.sampling import SampleNoise, trajectory
from unstir.training.config import TrainingConfig
from unstir.training.loop import Loop, TrainingState

SHOWN = 6  # stops of the way down that are printed


def train(steps: int, chain: int) -> BitDenoiser:
    """The averaged model after so many steps of 64 sequences, through the training loop of everything else."""
    data = heartbeats()
    torch.manual_seed(0)
    network = MLPConfig(width=128, depth=2).build(DataSpec("points", (data.shape[1],)), data.shape[1])
    config = TrainingConfig(steps=steps, batch_size=64, learning_rate=2e-3)

    def draw(step: int, positions: list[int], rng: SampleNoise) -> Batch:
        return Batch(data[(rng.uniform() * len(data)).long()])

    state = TrainingState(BitDenoiser(network, BitFlip(chain)), config)
    for _ in Loop(state, BitObjective(), draw, config, Accelerator(cpu=True)):
        pass
    model = state.averaged.module
    assert isinstance(model, BitDenoiser)
    return model.eval()


def main() -> None:
    """Trains, samples, bounds, prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--chain", type=int, default=2000, help="steps of the process; the paper's 2,000")
    parser.add_argument("-n", type=int, default=1000)
    options = parser.parse_args()
    data, start = heartbeats(), time.perf_counter()
    model = train(options.steps, options.chain)
    trained, process = time.perf_counter() - start, model.process
    rng = SampleNoise(0, range(options.n))
    x = process.prior_sample(rng.normal(data.shape[1:]))
    states = [x]
    for step in trajectory(model, BitSampler(), Uniform().times(process, options.chain), x, rng):
        states.append(step.x_s)
    right = torch.stack([(states[-1] == pattern).all(1) for pattern in data]).sum(1)
    bits = bound(model, data.repeat(20, 1), SampleNoise(1, range(20 * len(data)))) / math.log(2)
    error = float(bits.std()) / math.sqrt(len(bits))
    print(heading("Binary heartbeats by the bit-flip chain"))
    rows: list[list[object]] = [
        ["training", f"{options.steps:,} steps of 64 in {trained:.0f} s"],
        [f"whole heartbeats among {options.n:,} samples", f"{int(right.sum()) / options.n:.1%}"],
        ["the five phases", ", ".join(str(int(count)) for count in right)],
        ["bound, bits a sequence", f"{float(bits.mean()):.3f} ± {error:.3f}"],
        ["the truth", f"{math.log2(5):.3f}"],
        ["the paper's model", "2.414"],
    ]
    print(table(["", "found"], rows))
    print()
    for k in range(SHOWN):
        index = k * options.chain // (SHOWN - 1)
        shown = ("".join("█" if bit > 0 else "·" for bit in states[index][i]) for i in range(3))
        print(f"    t = {options.chain - index:5,}   " + "   ".join(shown))


if __name__ == "__main__":
    main()
