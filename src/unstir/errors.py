"""The one exception a user can cause."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Something the user can mend. The command line prints its one or two lines, without a traceback, and exits with code 2.

    Say what is wrong, where, and what to do.
    """


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint for a mistyped name: the nearest known ones, or all of them when none is near."""
    known = list(dict.fromkeys(known))
    near = difflib.get_close_matches(word, known, n=2, cutoff=0.5)
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"known: {', '.join(known)}"
