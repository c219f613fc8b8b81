"""What a model needs of other runs, loaded once."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from unstir.trained import Trained

if TYPE_CHECKING:
    from unstir.model import Model

T = TypeVar("T")


def cached(model: Model, name: str, load: Callable[[], T]) -> T:
    """What ``load`` gives, the first time that it is asked for."""
    if name not in model.cache:
        model.cache[name] = load()
    found: T = model.cache[name]
    return found


def other(model: Model, name: str, check: Callable[[Trained], None]) -> Model:
    """The model of another run.

    Args:
        name: of the run, as this one's settings say it.
        check: refuses one that does not fit.

    Raises:
        UserError: no such run, or one that does not fit.
    """

    def load() -> Model:
        trained = model.fetch(name, model.device)
        check(trained)
        return type(model).of(trained)

    return cached(model, f"model {name}", load)
