"""What a run shows of what it has learnt, while it trains and at the end: pictures of samples, a classifier's accuracy, ...

A new kind of module needs a function here and a line in ``SHOWS``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch

from unstir.autoencoder import Autoencoder
from unstir.clip import Clip
from unstir.likeness import computed_like, rows_showing
from unstir.media.write import write
from unstir.noisy_classifier import NoisyClassifier
from unstir.recipes.module import AutoencoderConfig, ClipConfig, DenoiserConfig, ModuleConfig, NoisyClassifierConfig
from unstir.sampling import end
from unstir.training import reconstruction, retrieval
from unstir.training.accuracy import measure, write_accuracy

if TYPE_CHECKING:
    from unstir.training.session import Session


@dataclass(frozen=True)
class Shown:
    """What was shown.

    Args:
        lines: for a person: (what, where it is or what it says).
        numbers: for metrics.jsonl, by name.
    """

    lines: tuple[tuple[str, str], ...] = ()
    numbers: Mapping[str, float] = field(default_factory=dict)


Show = Callable[["Session", bool], Shown]
"""(session, whether this is the end) -> what was shown; called on all processes, of which the main one writes files."""


def samples(session: Session, final: bool) -> Shown:
    """Draws some samples of every class and writes their picture; every process draws its share. At the end also the paper's
    figure, of data that have one."""
    from unstir.figures import write_figure

    model, processes = session.model(), session.accelerator.num_processes
    count, cond = model.showcase()
    padded = range(-(-count // processes) * processes)
    share = list(padded)[session.accelerator.process_index :: processes]
    mine: dict[str, Any] = {name: labels[[i % count for i in share]] for name, labels in cond.items()}
    rows = functools.cache(
        lambda: rows_showing(session.dataset, cond, count)
    )  # looked for only where they are asked for
    mine |= computed_like(model, model.recipe.sampling, session.dataset, lambda i: rows()[i % count])
    x = model.decode(end(model.trajectory(share, seed=session.recipe.training.seed, **mine)))
    if processes > 1:  # process p's k-th sample is number k * processes + p
        x = session.accelerator.gather(x).unflatten(0, (processes, -1)).transpose(0, 1).flatten(0, 1)
    if not session.main:
        return Shown()
    path, spec = session.run.samples / f"step-{session.state.step:07d}.png", session.dataset.spec
    labels = next((row.tolist() for row in cond.values()), None)
    write(spec.to_data(x[:count]), path, spec, labels=labels)
    figure = write_figure(model, session.dataset, session.run.samples) if final else None
    return Shown((("samples", ", ".join(str(file) for file in (path, figure) if file)),))


def accuracy(session: Session, final: bool) -> Shown:
    """How often a noisy classifier is right, by noise level, of samples that were held out (or of those it saw, where none were)."""
    classifier = session.trained().module
    assert isinstance(classifier, NoisyClassifier)
    rows, of = (session.held_out, "held-out") if len(session.held_out) else (session.rows, "training")
    found = measure(classifier, session.seen, rows, session.recipe.training.seed, session.accelerator)
    if session.main:
        write_accuracy(session.run.accuracy_file, found, of, session.state.step)
    return Shown((("accuracy", found.text(of)),), found.numbers(of))


def retrieved(session: Session, final: bool) -> Shown:
    """How often a CLIP finds the caption of a picture, and the picture of a caption, by noise level, of captions that were held out (or of
    those it saw, where none were)."""
    clip = session.trained().module
    assert isinstance(clip, Clip)
    rows, of = (session.held_out, "held-out") if len(session.held_out) else (session.rows, "training")
    found = retrieval.measure(clip, session.seen, rows, of, session.recipe.training.seed, session.accelerator)
    if session.main:
        retrieval.write_retrieval(session.run.retrieval_file, found, session.state.step)
    return Shown(found.lines(), found.numbers())


SHOWN_PAIRS = 24
"""Samples in the picture of an autoencoder's reconstructions."""


def reconstructions(session: Session, final: bool) -> Shown:
    """How well an autoencoder gives back samples that were held out (or those it saw, where none were), and a picture of some: each sample,
    and right of it what came back."""
    autoencoder = session.trained().module
    assert isinstance(autoencoder, Autoencoder)
    rows, of = (session.held_out, "held-out") if len(session.held_out) else (session.rows, "training")
    found = reconstruction.measure(autoencoder, session.dataset, rows, of, session.accelerator)
    if not session.main:
        return Shown()
    reconstruction.write_fidelity(session.run.fidelity_file, found, session.state.step)
    path, spec = session.run.samples / f"step-{session.state.step:07d}.png", session.dataset.spec
    with torch.no_grad():
        parts = reconstruction.pairs(autoencoder, session.dataset, rows[:SHOWN_PAIRS], session.accelerator.device)
        both = torch.cat([torch.cat([x, y], -1) for x, _, y in parts])
    wide = replace(spec, shape=(*spec.shape[:-1], 2 * spec.shape[-1]))
    write(wide.to_data(both), path, wide)
    return Shown(
        (("pictures", f"{path} (each sample, and right of it what came back)"), ("fidelity", found.text())),
        found.numbers(),
    )


SHOWS: dict[type[ModuleConfig], Show] = {
    DenoiserConfig: samples,
    NoisyClassifierConfig: accuracy,
    ClipConfig: retrieved,
    AutoencoderConfig: reconstructions,
}
