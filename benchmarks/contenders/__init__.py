"""Whom the benchmarks compare, by name. Imported when asked for: each process holds one contender's libraries only."""

from __future__ import annotations

from importlib import import_module

from contenders.contender import SETTINGS, Contender, Setting, Tuning

CONTENDERS = {
    "lucidrains": "contenders.lucidrains:Lucidrains",
    "diffusers": "contenders.huggingface:Diffusers",
    "unstir": "contenders.ours:EqualUnstir",
    "unstir-quick": "contenders.ours:QuickUnstir",
}
"""`unstir` has the peers' parameters and FLOPs within 5 %; `unstir-quick` is the recipe's own network, which has not."""


def contender(name: str) -> type[Contender]:
    """The class of this name."""
    module, attribute = CONTENDERS[name].split(":")
    found: type[Contender] = getattr(import_module(module), attribute)
    return found


__all__ = ["CONTENDERS", "SETTINGS", "Contender", "Setting", "Tuning", "contender"]
