"""The data doctor: what is in a source, what is wrong with it, and what to train on it."""

from __future__ import annotations

import hashlib
import math

import numpy as np

from unstir.data.config import DataConfig
from unstir.data.contents import Contents, Progress
from unstir.data.dataset import captions_of
from unstir.data.measure import channels_first, measure
from unstir.data.report import Report, some
from unstir.data.sources import read
from unstir.errors import UserError

RECIPES = {"image": "quick", "signal": "ecg", "points": "swiss-roll"}
FROM_CAPTIONS = "glide"
BATCH = {"points": 1024, "signal": 128, "image": 128, "volume": 16}
PLENTY = 200_000  # samples above which duplicates are not looked for


def check(config: DataConfig, progress: Progress | None = None) -> Report:
    """Looks at everything: reads the source, decodes every picture (training finds them in the cache), measures every
    number.

    What would stop training (gaps, say) is a note here. A source that cannot be read at all is a UserError, as in
    training.
    """
    contents = read(config, progress)
    report = contents.report
    if "modes" not in report.facts:  # pictures from files come with a description
        _describe_array(contents)
    captions = captions_of(contents)
    if captions and "captions" not in report.facts:
        report.facts["captions"] = f"{sum(map(bool, captions)):,}"
    if config.text:
        _read_captions(captions, report, config)
    for name, column in contents.columns.items():
        if column.condition.kind == "vector":
            gaps = int(np.isnan(np.asarray(column.values)).any(axis=1).sum())
            report.facts[f"condition {name}"] = f"{column.condition.size} numbers" + (
                f", {gaps} with gaps" if gaps else ""
            )
    _suggest(contents, config)
    if any(captions) and contents.kind == "image":
        report.suggestions.append(
            f"unstir train {FROM_CAPTIONS} --data {config.source}  (pictures from their captions)"
        )
    return report


def _read_captions(captions: list[str], report: Report, config: DataConfig) -> None:
    """What the chosen encoder makes of the captions."""
    from unstir.conditioning.text import distinct, text_encoder
    from unstir.data.text import check_captions, notes

    try:
        encoder = text_encoder(config.text)
        check_captions(report.source, captions, config.text)
        different = distinct(captions)
        counts = encoder.count(different)
        longest = encoder.longest
    except UserError as error:
        report.notes.append(str(error))
        return
    report.facts["captions read by"] = f"{config.text}: the longest has {max(counts):,} tokens, of at most {longest}"
    cut = [caption for caption, count in zip(different, counts, strict=True) if count > longest]
    report.notes += notes(len(captions), sum(not caption.strip() for caption in captions), cut, longest, config.text)


def _describe_array(contents: Contents) -> None:
    report, x = contents.report, channels_first(contents.x, contents.channels_last, contents.channel_axis)
    shape = " x ".join(map(str, contents.x.shape))
    report.facts["array"] = f"{shape} {contents.x.dtype.name}"
    report.facts["used as"] = f"{contents.kind}, {' x '.join(map(str, x.shape[1:]))}" + (
        " (channels first)" if contents.kind != "points" else ""
    )
    found = measure(x)
    report.facts["range"] = f"{found.low.min():.6g} to {found.high.max():.6g}"
    names = contents.channels or tuple(str(i) for i in range(len(found.mean)))
    if len(found.mean) <= 32:
        spread = zip(names, found.mean, found.std, strict=True)
        report.facts["mean ± std"] = ", ".join(f"{name}: {mean:.4g} ± {std:.4g}" for name, mean, std in spread)
    constant = [name for name, low, high in zip(names, found.low, found.high, strict=True) if low == high]
    if constant:
        report.notes.append(f"constant: {some(constant)}; leave it out, there is nothing to learn")
    if found.not_finite:
        report.notes.append(
            f"{found.not_finite:,} numbers are NaN or infinite, the first in sample {found.first_not_finite}: training refuses them"
        )
    label = contents.columns.get("label")
    if label is not None and label.condition.kind == "class":
        values, names = np.asarray(label.values), label.condition.names
        counts = np.bincount(values[values >= 0], minlength=label.condition.size)
        report.classes = {names[i] if names else str(i): int(count) for i, count in enumerate(counts)}
        if (values < 0).any():
            report.facts["without a class"] = f"{int((values < 0).sum()):,}"
    if contents.kind != "points" and len(contents.x) <= PLENTY:  # points on a line or grid meet by chance
        report.duplicates = _duplicates(contents)


def _duplicates(contents: Contents) -> list[list[str]]:
    """Groups of samples with the same numbers in them, by caption where they have one, else by number."""
    captions = contents.columns["text"].values if "text" in contents.columns else [""] * len(contents.x)
    groups: dict[bytes, list[str]] = {}
    for i, sample in enumerate(contents.x):
        groups.setdefault(hashlib.blake2b(sample.tobytes(), digest_size=16).digest(), []).append(
            str(captions[i]) or str(i)
        )
    return [group for group in groups.values() if len(group) > 1]


def _suggest(contents: Contents, config: DataConfig) -> None:
    suggest = contents.report.suggestions
    kind, count = contents.kind, len(contents.x)
    x = channels_first(contents.x, contents.channels_last, contents.channel_axis)
    batch = BATCH[kind]
    if kind == "image":
        height, width = x.shape[2:]
        batch = max(8, min(128, 2 ** round(math.log2(128 * 32 * 32 / (height * width)))))
        if max(height, width) > 64:
            suggest.append(
                f"--data.size 64  ({height} x {width} takes about {height * width / 4096:.0f} times as long)"
            )
        else:
            suggest.append(f"--data.size {height} {width}")
    if count < 2 * batch:
        batch = max(1, 2 ** int(math.log2(max(count, 2) / 2)))
    suggest.append(f"--training.batch-size {batch}")
    if count < 500:
        contents.report.notes.append(
            f"{count} samples are few: the model will remember them rather than learn what they share"
        )
    if kind in RECIPES:
        suggest.append(f"unstir train {RECIPES[kind]} --data {config.source}")
