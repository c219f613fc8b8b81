"""Data: from a SOURCE string to batches."""

from __future__ import annotations

from unstir.data.builtin import BUILTIN
from unstir.data.config import DataConfig
from unstir.data.contents import Progress
from unstir.data.dataset import Dataset, finish
from unstir.data.doctor import check
from unstir.data.groups import with_groups
from unstir.data.report import Report
from unstir.data.sources import read
from unstir.data.spec import Condition, DataSpec
from unstir.data.text import with_captions

__all__ = ["BUILTIN", "Condition", "DataConfig", "DataSpec", "Dataset", "Report", "check", "load"]


def load(config: DataConfig, progress: Progress | None = None) -> Dataset:
    """Reads the data that a config names.

    Args:
        config: the source and how to read it.
        progress: called with (done, in all) while pictures are decoded.

    Raises:
        UserError: whatever is wrong with the source, in one or two lines.
    """
    return with_groups(with_captions(finish(read(config, progress), config), config), config.groups)
