"""Weights of a run for the module of another: before its first step that one then says what the run says."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from unstir.conditioning.embed import ClassEmbedding
from unstir.data import Condition, DataSpec
from unstir.errors import UserError
from unstir.networks.dit import DiT
from unstir.networks.embedding import Embedding
from unstir.networks.layers import CONV, zero
from unstir.networks.unet import UNet
from unstir.trainable import Trainable
from unstir.trained import Trained
from unstir.training.base import same_meaning

LEAST = 0.1
"""Share of the weights below which a run is no base of another."""


@runtime_checkable
class BuiltAround(Protocol):
    """A network around another run's, which knows where the parts of that one belong."""

    def places(self, name: str) -> tuple[str, ...]: ...


@dataclass(frozen=True)
class Adopted:
    """What came over.

    Args:
        share: of the new module's numbers that are the base's.
        notes: what did not, in words.
    """

    share: float
    notes: tuple[str, ...]

    def __str__(self) -> str:
        return "; ".join([f"{self.share:.0%} of the weights start from it", *self.notes])


Layers = dict[str, dict[str, Tensor]]
"""The tensors of every layer that has some of its own, by the layer's name."""


def _layers(module: nn.Module) -> Layers:
    found: Layers = {}
    for name, tensor in module.state_dict().items():
        path, _, own = name.rpartition(".")
        found.setdefault(path, {})[own] = tensor
    return found


def _places(module: Trainable, base: Trainable) -> Callable[[str], tuple[str, ...]]:
    """The name of a part of the base -> those of the parts of the module that start from it."""
    network = module.network
    if type(network) is type(base.network) or not isinstance(network, BuiltAround):
        return lambda name: (name,)

    def places(name: str) -> tuple[str, ...]:
        top, _, inner = name.partition(".")
        if top != "network":
            return (name,)
        return tuple(f"network.{place}".rstrip(".") for place in network.places(inner))

    return places


def _same(mine: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    """Whether the tensors of two layers have the same names and shapes."""
    return mine.keys() == theirs.keys() and all(mine[own].shape == theirs[own].shape for own in mine)


def _wider(layer: nn.Module, mine: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    """Whether a layer is the base's but for more inputs."""
    if not isinstance(layer, (nn.Linear, *CONV.values())) or mine.keys() != theirs.keys():
        return False
    a, b = mine["weight"].shape, theirs["weight"].shape
    return len(a) == len(b) and a[1] > b[1] and (a[0], *a[2:]) == (b[0], *b[2:])


def _take(mine: Tensor, theirs: Tensor) -> None:
    """Overwrites a tensor; inputs that are more than the base's start at 0."""
    if mine.shape != theirs.shape:
        mine.zero_()
        mine = mine.narrow(1, 0, theirs.shape[1])
    mine.copy_(theirs)


class Meeting(ABC):
    """The same part of the module and of its base, which may have been built for other conditions.

    Args:
        place: name of the module's part. path: of the base's.
        mine, theirs: the parts.
        ours: conditions of the module. known: of the base.
    """

    def __init__(
        self,
        place: str,
        path: str,
        mine: Any,
        theirs: Any,
        ours: Mapping[str, Condition],
        known: Mapping[str, Condition],
    ) -> None:
        self.place, self.path = place, path
        self.mine, self.theirs = mine, theirs
        self.same = {name for name in ours.keys() & known.keys() if same_meaning(ours[name], known[name])}
        self.notes: list[str] = []

    @abstractmethod
    def redirect(self, source: dict[str, str], there: Collection[str]) -> None:
        """Mends which layer of the base each layer of the module starts from.

        Args:
            source: the module's layer -> the base's. there: all layers of the base.
        """

    @abstractmethod
    def settle(self) -> None:
        """Does, after layers were copied, what copying whole layers cannot do."""


class Embeddings(Meeting):
    """Two ``Embedding``s: conditions meet by their names, not by their numbers."""

    @staticmethod
    def _lists(embedding: Embedding) -> dict[str, tuple[str, ...]]:
        captions = () if embedding.captions is None else embedding.captions.names
        return {"conditions.parts": embedding.conditions.names, "captions.parts": captions, "captions.pooled": captions}

    def redirect(self, source: dict[str, str], there: Collection[str]) -> None:
        old = self._lists(self.theirs)
        for within, names in self._lists(self.mine).items():
            for number, name in enumerate(names):
                here = f"{self.place}.{within}.{number}"
                for place in [place for place in source if f"{place}.".startswith(f"{here}.")]:
                    del source[place]
                if name not in self.same or name not in old[within]:
                    continue
                origin = f"{self.path}.{within}.{old[within].index(name)}"
                inside = [path for path in there if f"{path}.".startswith(f"{origin}.")]
                source |= {here + path.removeprefix(origin): path for path in inside}

    def settle(self) -> None:
        bias, old = self.mine.noise[-1].bias, self.theirs.conditions
        theirs = dict(zip(old.names, old.parts, strict=True))
        if bias.shape != self.theirs.noise[-1].bias.shape:
            return
        went_on = set(self.same)
        for name, part in zip(self.mine.conditions.names, self.mine.conditions.parts, strict=True):
            if name in self.same:
                continue
            if isinstance(part, ClassEmbedding) and isinstance(theirs.get(name), ClassEmbedding):
                part.table.weight.copy_(theirs[name].table.weight[:1].expand_as(part.table.weight))
                went_on.add(name)
            else:
                _silence(part)
        for name, null in self._nulls():
            if name not in went_on:
                bias += null
        self.notes += self._changes(self._lists(self.mine), self._lists(self.theirs))

    def _changes(self, mine: dict[str, tuple[str, ...]], theirs: dict[str, tuple[str, ...]]) -> Iterator[str]:
        here, there = ({name for names in lists.values() for name in names} for lists in (mine, theirs))
        yield from (f"{name} is new" for name in sorted(here - there))
        yield from (f"{name} is another one than there, and starts anew" for name in sorted(here & there - self.same))
        yield from (f"{name} is no longer told" for name in sorted(there - here))

    def _nulls(self) -> Iterator[tuple[str, Tensor]]:
        """The base's conditions, and what each adds to the embedding where nobody asks for it."""
        old, device = self.theirs, self.theirs.noise[-1].bias.device
        for name, part in zip(old.conditions.names, old.conditions.parts, strict=True):
            yield name, part(part.null(1, device))[0]
        if old.captions is not None:
            for name, part, pooled in zip(old.captions.names, old.captions.parts, old.captions.pooled, strict=True):
                yield name, pooled(part(part.null(1, device)).mean())[0]


class Grids(Meeting):
    """Two networks' layers for conditions on the data's grid: a block of inputs for each condition."""

    def _alike(self) -> bool:
        ours, theirs = self.mine.grids.sizes, self.theirs.grids.sizes
        return list(ours.items()) == list(theirs.items()) and self.same.issuperset(ours)

    def redirect(self, source: dict[str, str], there: Collection[str]) -> None:
        if not self._alike():
            source.pop(f"{self.place}.grid_stem", None)

    def settle(self) -> None:
        new, old = self.mine.grid_stem, self.theirs.grid_stem
        ours, theirs = self.mine.grids.sizes, self.theirs.grids.sizes
        self.notes += [f"{name} is new" for name in ours if name not in theirs]
        self.notes += [f"{name} is no longer told" for name in theirs if name not in ours]
        if old is None or self._alike() or self.mine.stem.bias.shape != self.theirs.stem.bias.shape:
            return
        if new is None:  # a grid that is not known anywhere adds nothing but this
            self.mine.stem.bias += old.bias
            return
        new.bias.copy_(old.bias)
        here, there = self._inputs(self.mine), self._inputs(self.theirs)
        for name in self.same & ours.keys() & theirs.keys():
            new.weight[:, here[name]] = old.weight[:, there[name]]

    @staticmethod
    def _inputs(network: Any) -> dict[str, slice]:
        """Which inputs of the layer are whose."""
        each, start, found = network.grid_stem.weight.shape[1] // network.grids.channels, 0, {}
        for name, size in network.grids.sizes.items():
            found[name] = slice(start, start + (size + 1) * each)
            start = found[name].stop
        return found


MEETINGS: dict[type[nn.Module], type[Meeting]] = {Embedding: Embeddings, UNet: Grids, DiT: Grids}


def _silence(part: nn.Module) -> None:
    """Makes the last layer of a condition's embedding 0, so that it adds nothing yet."""
    *_, last = (layer for layer in part.modules() if any(True for _ in layer.parameters(recurse=False)))
    zero(last)


def _meetings(
    module: Trainable, base: Trained, spec: DataSpec, places: Callable[[str], tuple[str, ...]]
) -> Iterator[Meeting]:
    parts = dict(module.named_modules())
    for path, theirs in base.module.named_modules():
        for place in places(path):
            mine, kind = parts.get(place), MEETINGS.get(type(theirs))
            if kind is not None and type(mine) is type(theirs):
                yield kind(place, path, mine, theirs, spec.conditions, base.spec.conditions)


def _copy_layers(module: nn.Module, ours: Layers, theirs: Layers, source: Mapping[str, str]) -> set[str]:
    """Copies the layers that are the same; -> the names of the module's tensors that are now the base's."""
    layers = dict(module.named_modules())
    shared = {path: (tensors, theirs[source[path]]) for path, tensors in ours.items() if path in source}
    same = {path for path, pair in shared.items() if _same(*pair)}
    wider = {path for path in shared.keys() - same if _wider(layers[path], *shared[path])}
    if same | wider != shared.keys():  # a network of other widths, where more inputs are not what was added to the data
        wider = set()
    taken: set[str] = set()
    for path in same | wider:
        for own, tensor in ours[path].items():
            _take(tensor, shared[path][1][own])
            taken.add(f"{path}.{own}")
    return taken


@torch.no_grad()
def adopt(module: Trainable, base: Trained, spec: DataSpec) -> Adopted:
    """Overwrites a fresh module with a run's averaged weights, a layer at a time, where names and shapes are the same.

    Before the first step the module then says what the base says, asked for what both know:

    - inputs that the base has not (grids beside the data) have weights of 0, and so have conditions that are new to it;
    - of a condition with other classes every class starts as the base's null class;
    - what the base was told for a null condition that the data have not is added to the embedding of the noise level.

    Args:
        module: as ``ModuleConfig.build`` and ``fit`` leave it.
        spec: for which it was built.

    Raises:
        UserError: hardly anything fits; or a part of the base that must stay as it is does not.
    """
    ours, theirs, places = _layers(module), _layers(base.module), _places(module, base.module)
    source = {place: path for path in theirs for place in places(path)}
    meetings = list(_meetings(module, base, spec, places))
    for meeting in meetings:
        meeting.redirect(source, theirs)
    taken = _copy_layers(module, ours, theirs, source)
    for meeting in meetings:
        meeting.settle()
    numbers = {f"{path}.{own}": tensor.numel() for path, tensors in ours.items() for own, tensor in tensors.items()}
    share = sum(numbers[name] for name in taken) / max(sum(numbers.values()), 1)
    frozen = [name for name, parameter in module.named_parameters() if not parameter.requires_grad]
    if share < LEAST or not taken.issuperset(frozen):
        raise UserError(
            f"this recipe's network is another one than the base's, and could take {share:.0%} of its weights from there: leave out "
            "--network options, so that it is the base's"
        )
    return Adopted(share, tuple(dict.fromkeys(note for meeting in meetings for note in meeting.notes)))
