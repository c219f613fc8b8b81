"""unstir evaluate RUN|FOLDER|FILE|NAME [--data SOURCE] [--split test] [--metrics fd kd is pr neighbours retrieval nll] [--features NAME] [-n N] ..."""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from unstir.cli.arguments import parse, spelled_out, take
from unstir.cli.likelihood import NllOptions, check_nll, data_to_judge, likelihood
from unstir.cli.progress import decoding_progress, stage_progress
from unstir.cli.reconstruction import is_autoencoder, kept_from, reconstructions, with_fidelity
from unstir.cli.retrieval import RetrievalOptions, caption_judge, check_retrieval
from unstir.data import DataConfig
from unstir.errors import UserError
from unstir.recipes import SamplingConfig

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator

    from unstir.data import Dataset
    from unstir.evaluation.evaluate import Evaluation
    from unstir.evaluation.metric import Metric
    from unstir.evaluation.report import Report
    from unstir.evaluation.retrieval import Watched
    from unstir.evaluation.samples import SampleSource
    from unstir.run import Run

USAGE = """usage: unstir evaluate RUN|FOLDER|FILE.npz|FILE.npy|NAME [--data SOURCE] [options]

Judges samples by their distance to data: those of a trained model (RUN), or those in a folder, a file or a built-in data set.

  --data SOURCE    what to compare with; default: what the run was trained on. Two files: unstir evaluate a.npz --data b.npz
  --split test     the test set of the data, where it has one
  --metrics ...    fd kd is pr neighbours (default: fd kd pr); nll: bits/dim of data under a RUN's model;
                   retrieval: how often a CLIP finds the samples' captions, with --judge RUN of the CLIP
  --features NAME  the feature space; default: by the kind of data
  -n N             how many samples (default: 2,048 of a run, all of anything else)
  --json FILE      write the result for programs too ("-": to standard output alone)
  --out PICTURE    samples beside their nearest training neighbours, the most suspicious first

`unstir evaluate RUN --help` lists all options."""

N = 2048
"""Samples of a run, where nobody said how many."""


@dataclass(frozen=True)
class EvaluateOptions(RetrievalOptions):
    """What to judge, and by what."""

    data: DataConfig = field(default_factory=DataConfig)
    """What to compare with, and how to read it (--data SOURCE; --split NAME)."""
    metrics: tuple[str, ...] = ("fd", "kd", "pr")
    """fd: Fréchet distance. kd: kernel distance. is: Inception score. pr: precision, recall, density, coverage. neighbours: memorisation.
    nll: negative log-likelihood in bits/dim and nats, of a run's model. retrieval: captions of the samples that a CLIP finds (--judge)."""
    features: str = ""
    """Feature space. Default: by the kind of data."""
    n: int = 0
    """How many samples. Default: 2,048 of a run, all there are of anything else; for nll 256 samples of the data."""
    reference_samples: int = 10_000
    """Most samples of the data that are used: a random subset, always the same."""
    batch_size: int = 64
    """How many at a time, in each process."""
    device: str = ""
    """cpu, cuda or mps; default: the best there is."""
    json: str = ""
    """A file for the result as JSON; "-" is standard output."""
    out: str = ""
    """A picture of the samples that are nearest to training data, beside these."""


@dataclass(frozen=True)
class RunOptions(SamplingConfig, EvaluateOptions, NllOptions):
    """What to judge, and by what; the sampler's options are as in ``unstir sample``."""

    seed: int = 0
    """Sample i depends on (seed, i) alone."""
    match_conditions: bool = True
    """Ask for captions, classes and other conditions as the data have them; without it by --labels. For nll: tell the model the conditions
    of each sample."""


def main(words: list[str]) -> None:
    """Runs the command."""
    from unstir.run import Run

    if not words or words[0].startswith("-"):
        if words and words[0] not in ("-h", "--help"):
            raise UserError(
                "name what to judge first: unstir evaluate RUN (or a folder, a .npz file, a built-in data set)"
            )
        print(USAGE)
        return
    what, *rest = words
    rest = spelled_out(rest)
    source, split = take(rest, "--data"), take(rest, "--split")
    run = Run(what) if Run(what).exists() else None
    options: EvaluateOptions = _run_options(run) if run else EvaluateOptions()
    options = parse(_with_data(options, source, split), rest, f"unstir evaluate {what}")
    _check(options, what)
    evaluate(what, run, options, data_to_judge(options.data, split is not None))


def _run_options(run: Run) -> RunOptions:
    _, recipe, _ = run.read_recipe()
    recommended = {f.name: getattr(recipe.sampling, f.name) for f in dataclasses.fields(SamplingConfig)}
    # Groups and encoded captions are the model's own affair: found anew in other data they would mean something else.
    return RunOptions(**recommended, data=recipe.data.plain())


def _with_data(options: EvaluateOptions, source: str | None, split: str | None) -> EvaluateOptions:
    data = options.data
    if source is not None:  # another source need not have the split that the run's has
        data = dataclasses.replace(data, source=source, split=DataConfig.split)
    if split is not None:
        data = dataclasses.replace(data, split=split)
    return dataclasses.replace(options, data=data)


def _check(options: EvaluateOptions, what: str) -> None:
    """All that can be said before anything is read."""
    from unstir.evaluation.metrics import NLL, RETRIEVAL, metrics
    from unstir.media.files import check_writable

    distances = metrics(options.metrics)
    if NLL in options.metrics and not isinstance(options, RunOptions):
        raise UserError(f"nll judges a model by data, and {what} is no run folder: unstir evaluate RUN --metrics nll")
    if not options.data.source:
        raise UserError(
            f"compare {what} with what? unstir evaluate {what} --data SOURCE (a folder, a file, a built-in name)"
        )
    if options.n < 0 or options.batch_size < 1 or options.reference_samples < 4:
        raise UserError("-n and --batch-size must be positive, --reference-samples at least 4")
    check_retrieval(options, RETRIEVAL in options.metrics)
    if isinstance(options, RunOptions):
        check_nll(options, what)
    if options.n == 1 and distances:
        raise UserError("a distribution cannot be judged by 1 sample; give -n 2 or more, best thousands")
    if isinstance(options, RunOptions) and options.steps < 1:
        raise UserError(f"the number of steps must be positive, not {options.steps}")
    for path in (options.json, options.out):
        if path not in ("", "-"):
            check_writable(Path(path).parent)
    if options.out and Path(options.out).suffix.lower() not in PICTURE_FORMATS:
        raise UserError(f"--out {options.out}: a picture ends in {', '.join(PICTURE_FORMATS)}")


PICTURE_FORMATS = {".png": "PNG", ".webp": "WEBP"}


def evaluate(what: str, run: Run | None, options: EvaluateOptions, nll_data: DataConfig) -> None:
    """Judges, and writes and prints the outcome.

    Args:
        nll_data: the data whose likelihood is asked for.
    """
    from unstir.evaluation.evaluate import hardware
    from unstir.evaluation.metrics import NLL, RETRIEVAL, metrics
    from unstir.evaluation.report import Report
    from unstir.training.devices import disband, engine

    accelerator = engine(options.device)
    console = Console(stderr=True, quiet=not accelerator.is_main_process, highlight=False)
    device = _device(options.device, accelerator)
    chosen = metrics([*options.metrics, *(["neighbours"] if options.out else [])])
    report: Report | None = None
    if chosen or RETRIEVAL in options.metrics:
        report, picture = _judge_samples(what, run, options, chosen, device, accelerator, console)
    if NLL in options.metrics:
        assert run is not None
        with stage_progress(console) as progress:
            read = functools.partial(_load, accelerator=accelerator, console=console, run=run)
            nll = likelihood(run.model(device), run, options, nll_data, read, accelerator, progress)
        about = {"settings": dict(nll.settings), "seconds": round(nll.seconds, 1), "hardware": hardware(accelerator)}
        report = dataclasses.replace(report, nll=nll) if report else Report.of_likelihood(str(run.folder), nll, about)
    assert report is not None
    if accelerator.is_main_process:
        _tell(report, options)
        _record(run, report)
        if options.out:
            picture()
    disband(accelerator)


def _judge_samples(
    what: str,
    run: Run | None,
    options: EvaluateOptions,
    chosen: dict[str, Metric],
    device: torch.device,
    accelerator: Accelerator,
    console: Console,
) -> tuple[Report, Callable[[], None]]:
    """(how far the samples are from the data, and whether they show their captions; what draws the picture of the nearest neighbours)."""
    from unstir.evaluation.evaluate import hardware
    from unstir.evaluation.metrics import RETRIEVAL
    from unstir.evaluation.pairs import check_kind
    from unstir.evaluation.report import Report

    data = kept_from(run, options.data, _load(options.data, accelerator, console, run))
    if options.out:
        check_kind(data.spec)
    source = _source(what, run, options, data, device, accelerator, console)
    if RETRIEVAL not in options.metrics:
        return _distances(run, options, chosen, source, data, device, accelerator, console)
    begun = time.perf_counter()
    watched = _watched(what, run, options, source, data, device)
    if chosen:
        report, picture = _distances(run, options, chosen, watched, data, device, accelerator, console)
    with stage_progress(console) as progress:
        found = watched.judge.judge(watched, accelerator, options.batch_size, progress)
    if chosen:
        return dataclasses.replace(report, retrieval=found), picture
    about = {
        "settings": dict(source.settings),
        "seconds": round(time.perf_counter() - begun, 1),
        "hardware": hardware(accelerator),
    }
    return Report.of_retrieval(source.name, data.report.source or data.name, found, about), lambda: None


def _watched(
    what: str, run: Run | None, options: EvaluateOptions, source: SampleSource, data: Dataset, device: torch.device
) -> Watched:
    """The samples, at which the CLIP looks that judges them."""
    sources = [options.data.source, what if run is None else run.read_recipe()[1].data.source]
    judge = caption_judge(options.judge, data, options.reference_samples, sources, device)
    return judge.watch(source, options.n or source.count or N)


def _distances(
    run: Run | None,
    options: EvaluateOptions,
    chosen: dict[str, Metric],
    source: SampleSource,
    data: Dataset,
    device: torch.device,
    accelerator: Accelerator,
    console: Console,
) -> tuple[Report, Callable[[], None]]:
    """How far the samples are from the data in a feature space."""
    from unstir.evaluation.embed import Embedder
    from unstir.evaluation.evaluate import Evaluation
    from unstir.evaluation.features import feature_space

    cache = options.data.cache_folder()
    training = _training(run, options, accelerator, console) if "neighbours" in chosen else None
    basis = _basis(options.data, data, accelerator, console, run)
    with accelerator.main_process_first():  # the first process may have to train or fetch it
        space = feature_space(options.features or None, basis, device, cache)
    n = options.n or source.count or N
    judge = Evaluation(chosen, data, cache, training, options.reference_samples)
    with stage_progress(console) as progress:
        report = judge(source, n, Embedder(space, accelerator, options.batch_size, progress))
    report = with_fidelity(report, source, n, accelerator)
    return report, functools.partial(_picture, options.out, report, source, judge)


def _device(name: str, accelerator: Accelerator) -> torch.device:
    import torch

    from unstir.training.devices import keep_freed_memory

    try:
        device = torch.device(name) if name else accelerator.device
    except RuntimeError:
        raise UserError(f"unknown device '{name}': cpu, cuda or mps") from None
    if device.type == "cpu":
        keep_freed_memory()
    return device


def _load(config: DataConfig, accelerator: Accelerator, console: Console, run: Run | None = None) -> Dataset:
    """The data; as the run's model sees them, where it is a prior, whose data are the vectors of a CLIP."""
    from unstir.data import load

    with accelerator.main_process_first(), decoding_progress(console) as progress:
        dataset = load(config, progress)
    for line in dataset.report.problems():
        console.print(f"data: {line}", markup=False, soft_wrap=True)
    if run is None or not (recipe := run.read_recipe()[1]).vectors:
        return dataset
    from unstir.training.vectors import as_vectors

    recipe = dataclasses.replace(recipe, data=dataclasses.replace(config, flip=False))
    return as_vectors(dataset, run, recipe, accelerator)


def _basis(config: DataConfig, data: Dataset, accelerator: Accelerator, console: Console, run: Run | None) -> Dataset:
    """What the feature space is made from: the training split, so that distances to any split are measured in one space (and no
    classifier is trained on test labels)."""
    if config.split == DataConfig.split:
        return data
    return _load(dataclasses.replace(config, split=DataConfig.split), accelerator, console, run)


def _source(
    what: str,
    run: Run | None,
    options: EvaluateOptions,
    data: Dataset,
    device: torch.device,
    accelerator: Accelerator,
    console: Console,
) -> SampleSource:
    from unstir.evaluation.samples import DataSource, RunSource

    if run is None:
        # Read like the data they are compared with, but never resized to it.
        config = dataclasses.replace(options.data, source=what, split=DataConfig.split, size=None, labels=False)
        return DataSource(_load(config, accelerator, console))
    assert isinstance(options, RunOptions)
    _, recipe, _ = run.read_recipe()
    if is_autoencoder(run):
        return reconstructions(run, options.data, data, device)
    like = data if options.match_conditions else None
    other = options.data.source != recipe.data.source
    return RunSource(str(run.folder), run.model(device), options, options.seed, like, other)


def _training(run: Run | None, options: EvaluateOptions, accelerator: Accelerator, console: Console) -> Dataset | None:
    """The run's training data, where samples are compared with other data."""
    if run is None:
        return None
    _, recipe, _ = run.read_recipe()
    if (options.data.source, options.data.split) == (recipe.data.source, recipe.data.split):
        return None
    return _load(recipe.data.plain(), accelerator, console, run)


def _tell(report: Report, options: EvaluateOptions) -> None:
    text = json.dumps(report.to_json(), indent=2)
    if options.json == "-":
        print(text)
        for line in report.warnings():
            print(f"warning: {line}", file=sys.stderr)
        return
    print("\n".join(report.lines()))
    if options.json:
        _write(Path(options.json), text + "\n")


def _write(path: Path, text: str) -> None:
    from unstir.media.files import replacing

    with replacing(path) as file:
        file.write(text.encode())


def _record(run: Run | None, report: Report) -> None:
    """A line in the run folder's evaluation.jsonl."""
    from unstir.evaluation.record import append

    if run is not None:
        append(run.folder, report)


def _picture(out: str, report: Report, source: SampleSource, judge: Evaluation) -> None:
    from unstir.evaluation.neighbours import NeighbourValue
    from unstir.evaluation.pairs import pairs_picture
    from unstir.media.files import replacing

    found = report.values["neighbours"]
    assert isinstance(found, NeighbourValue)
    picture = pairs_picture(source, judge.training or judge.data, found)
    with replacing(Path(out)) as file:
        picture.save(file, format=PICTURE_FORMATS[Path(out).suffix.lower()])
    print(f"nearest training neighbours: {out}", file=sys.stderr)
