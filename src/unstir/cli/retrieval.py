"""The part of ``unstir evaluate`` that looks for the captions of samples: --metrics retrieval."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from unstir.errors import UserError

if TYPE_CHECKING:
    import torch

    from unstir.data import Dataset
    from unstir.evaluation.retrieval import CaptionJudge


@dataclass(frozen=True)
class RetrievalOptions:
    """Who looks for captions (--metrics retrieval)."""

    judge: str = ""
    """retrieval: run folder of a CLIP (unstir train clip), best one of other pictures with the same captions."""


def check_retrieval(options: RetrievalOptions, asked: bool) -> None:
    """Refuses retrieval without somebody who looks.

    Raises:
        UserError: with the option.
    """
    if asked and not options.judge:
        raise UserError("retrieval needs a CLIP that looks: --judge RUN, trained by unstir train clip --data SOURCE")


def caption_judge(name: str, data: Dataset, limit: int, sources: list[str], device: torch.device) -> CaptionJudge:
    """The CLIP that judges.

    Args:
        name: its run folder.
        data: what the samples are compared with.
        limit: most captions of the data.
        sources: of the data, and of those that made the samples.

    Raises:
        UserError: no such run, or it is no CLIP.
    """
    from unstir.evaluation.retrieval import CaptionJudge
    from unstir.run import fetch

    trained = fetch(name, device)
    own = trained.recipe.data.source
    known = own if _place(own) in map(_place, sources) else ""
    return CaptionJudge(name, trained, data, limit, known)


def _place(source: str) -> str:
    """The same for the same data, from whichever folder they are named."""
    path = Path(source).expanduser()
    return str(path.resolve()) if path.exists() else source
