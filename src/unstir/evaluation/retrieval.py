"""Whether samples show what they were asked for: a CLIP looks for the caption of each among all captions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from unstir.clip import Clip
from unstir.conditioning.text import tidy
from unstir.data import Dataset
from unstir.errors import UserError
from unstir.evaluation.embed import Array, Progress
from unstir.evaluation.features.simple import as_tensor
from unstir.evaluation.samples import DataSource, SampleSource, check_alike, order
from unstir.retrieval import TOP, caption_ranks, shares
from unstir.trained import Trained

ROWS = 1024  # of the matrix of similarities that are in memory at once
SHUFFLE_SEED = 0x5CAF


@dataclass(frozen=True)
class Retrieval:
    """How often the caption of a picture is among the k nearest to it, by k.

    Args:
        judge: the CLIP that looked.
        n: samples that have a caption.
        distinct: different captions among which it is sought.
        samples: of the samples.
        shuffled: of the samples with their captions dealt out anew.
        real: of the data's own pictures; empty where these have no captions. real_n: how many.
        told: whether the samples were drawn for these captions, rather than likened to those of the data, for a baseline.
        known: data that the CLIP was trained on, where they are those of the samples or of the comparison.
    """

    judge: str
    n: int
    distinct: int
    samples: Mapping[int, float]
    shuffled: Mapping[int, float]
    real: Mapping[int, float]
    real_n: int
    told: bool = True
    known: str = ""

    @property
    def chance(self) -> dict[int, float]:
        """Of somebody who guesses."""
        return {k: min(k / self.distinct, 1.0) for k in self.samples}

    def error(self, k: int) -> float:
        """Standard error of the samples' share."""
        share = self.samples[k]
        return math.sqrt(share * (1 - share) / self.n)

    def rows(self) -> list[tuple[str, str]]:
        """Lines of the report: name and value."""
        said = []
        for k, share in self.samples.items():
            others = [f"real data: {self.real[k]:.3f}"] if self.real else []
            others += [f"shuffled captions: {self.shuffled[k]:.3f}", f"chance: {self.chance[k]:.4f}"]
            name = f"retrieval[{self.judge}, top {k} of {self.distinct:,} captions, n={self.n}]"
            said.append((name, f"{share:.3f} ± {self.error(k):.1g}   ({', '.join(others)})"))
        return said

    def warnings(self) -> list[str]:
        """What makes the numbers less than they seem."""
        found = []
        if not self.told:
            found.append(
                "retrieval: the samples were not drawn for the captions that they are held against; this is a baseline"
            )
        if self.known:
            found.append(
                f"retrieval: {self.judge} was trained on {self.known} itself, and may know pictures by heart; better judge by a CLIP of "
                "other pictures with the same captions"
            )
        return found

    def to_json(self) -> dict[str, Any]:
        """Plain values; ``value`` is the share of which the nearest caption is the own one."""

        def plain(found: Mapping[int, float]) -> dict[str, float]:
            return {str(k): share for k, share in found.items()}

        return {
            "value": self.samples[TOP[0]],
            "error": self.error(TOP[0]),
            "n": self.n,
            "captions": self.distinct,
            "judge": self.judge,
            "told": self.told,
            "top": plain(self.samples),
            "shuffled": plain(self.shuffled),
            "chance": plain(self.chance),
            "real": {"top": plain(self.real), "n": self.real_n},
        }


@dataclass(frozen=True)
class CaptionJudge:
    """Judges samples by a CLIP.

    Args:
        name: of the CLIP.
        trained: it.
        data: real pictures, and the captions among which a sample's own is sought.
        limit: most captions of the data; those of the samples come on top.
        known: as in ``Retrieval``.

    Raises:
        UserError: it is no CLIP, or the data's pictures have no fixed range.
    """

    name: str
    trained: Trained
    data: Dataset
    limit: int
    known: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.trained.module, Clip):
            raise UserError(
                f"{self.name} is not a CLIP, by which retrieval judges; train one: unstir train clip --data SOURCE"
            )
        spec = self.trained.spec
        if spec.kind == "image" and not spec.bounds:
            raise UserError(
                f"{self.name} was trained on pictures without a fixed range, which files of samples do not hold"
            )

    @property
    def clip(self) -> Clip:
        assert isinstance(self.trained.module, Clip)
        return self.trained.module

    @torch.no_grad()
    def look(self, x: Array) -> Tensor:
        """Samples as files hold them -> (B, width) their vectors, on the CPU."""
        x_0 = self.trained.codec.encode(as_tensor(x, self.trained.spec).to(self.clip.network.log_scale.device))
        return self.clip.pictures(x_0, torch.zeros((), dtype=torch.float64)).cpu()

    def watch(self, source: SampleSource, n: int) -> Watched:
        """The same samples, at which the CLIP looks as they are drawn.

        Raises:
            UserError: they are fewer; they or the data are of another kind or shape than what it was trained on; or none of them have captions.
        """
        check_alike(source.spec, self.trained.spec, (source.name, self.name))
        check_alike(self.data.spec, self.trained.spec, (self.data.name, self.name))
        if source.count is not None and n > source.count:
            raise UserError(f"{source.name} holds {source.count:,} samples, fewer than -n {n:,}")
        watched = Watched(source, self, n)
        if not any(self._wanted(watched)[0]):
            raise UserError(
                f"retrieval looks for captions, and neither {source.name} nor {self.data.name} has any: give them in a metadata.jsonl "
                "(file_name, text), or as text in an .npz"
            )
        return watched

    def _wanted(self, watched: Watched) -> tuple[list[str], bool]:
        """The captions of the samples, and whether they were drawn for them. If for none, those of the data take their place: what somebody
        would get who does not listen."""
        captions = [tidy(caption) for caption in watched.captions(range(watched.n))]
        if any(captions):
            return captions, True
        numbers = [number % len(self.data) for number in range(watched.n)]
        return [tidy(caption) for caption in DataSource(self.data).captions(numbers)], False

    def judge(
        self, watched: Watched, accelerator: Accelerator, batch_size: int, progress: Progress | None
    ) -> Retrieval:
        """Retrieval of samples 0 ... n - 1. Call it on every process; all get the answer."""
        captions, told = self._wanted(watched)
        distinct = self._distinct(captions)
        vectors = self.clip.understood(distinct).cpu()
        place = {caption: i for i, caption in enumerate(distinct)}

        def found(pictures: Tensor, own: Sequence[str]) -> Mapping[int, float]:
            kept = [i for i, caption in enumerate(own) if caption]
            where = torch.tensor([place[own[i]] for i in kept])
            pieces = zip(torch.split(pictures[kept], ROWS), torch.split(where, ROWS), strict=True)
            return shares(torch.cat([caption_ranks(x @ vectors.mT, right) for x, right in pieces]))

        pictures = watched.everyones(accelerator, batch_size, f"looking at {watched.name}", progress)
        dealt = np.random.Generator(np.random.PCG64([SHUFFLE_SEED, watched.n])).permutation(watched.n)
        real = Watched(DataSource(self.data), self, min(watched.n, len(self.data)))
        theirs = real.everyones(accelerator, batch_size, f"looking at {self.data.name}", progress)
        own = [caption if caption in place else "" for caption in map(tidy, real.captions(range(real.n)))]
        return Retrieval(
            judge=self.name,
            n=sum(map(bool, captions)),
            distinct=len(distinct),
            samples=found(pictures, captions),
            shuffled=found(pictures, [captions[i] for i in dealt]),
            real=found(theirs, own) if any(own) else {},
            real_n=sum(map(bool, own)),
            told=told,
            known=self.known,
        )

    def _distinct(self, captions: Sequence[str]) -> list[str]:
        """The captions among which is sought: the data's, at most ``limit`` of them at random, and the samples' own."""
        everyones = [tidy(self.data.captions[row]) for row in order(len(self.data))] if self.data.captions else []
        some = [caption for caption in dict.fromkeys(everyones) if caption][: self.limit]
        return sorted({*some, *captions} - {""})


class Watched(SampleSource):
    """Samples at which a CLIP looks as they are drawn, so that what else judges them need not draw them again.

    Args:
        n: how many will be judged: samples 0 ... n - 1.
    """

    def __init__(self, source: SampleSource, judge: CaptionJudge, n: int) -> None:
        super().__init__(source.name, source.spec, source.count, source.settings)
        self.source = source
        self.judge = judge
        self.n = n
        self._vectors = torch.zeros(n, judge.clip.width)
        self._seen = np.zeros(n, dtype=bool)

    def draw(self, numbers: Sequence[int]) -> Array:
        x = self.source.draw(numbers)
        rows = list(numbers)
        self._vectors[rows] = self.judge.look(x).float()
        self._seen[rows] = True
        return x

    def captions(self, numbers: Sequence[int]) -> list[str]:
        return self.source.captions(numbers)

    def everyones(
        self, accelerator: Accelerator, batch_size: int, what: str, progress: Progress | None = None
    ) -> Tensor:
        """(n, width) vectors of all samples; process p of P draws samples p, p + P, ..., those that nobody wanted yet."""
        share = np.arange(accelerator.process_index, self.n, accelerator.num_processes)
        missing = share[~self._seen[share]]
        for start in range(0, len(missing), batch_size):
            self.draw(missing[start : start + batch_size].tolist())
            if progress is not None and accelerator.is_main_process:
                progress(what, min(start + batch_size, len(missing)), len(missing))
        mine = torch.zeros_like(self._vectors)
        mine[share] = self._vectors[share]
        if accelerator.num_processes == 1:
            return mine
        everyones: Tensor = accelerator.reduce(mine.to(accelerator.device), reduction="sum").cpu()
        return everyones
