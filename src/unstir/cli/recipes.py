"""unstir recipes [NAME]"""

from __future__ import annotations

import tomli_w

from unstir.recipes import RECIPES, recipe
from unstir.recipes.chains import CHAINS
from unstir.recipes.serial import to_dict


def main(words: list[str]) -> None:
    """Runs the command."""
    if words and words[0] not in ("-h", "--help"):
        chosen = recipe(words[0])
        print(
            f"# {chosen.about}\n# Any of these can be changed: --section.key VALUE, or --config FILE with lines like these."
        )
        if below := CHAINS.get(words[0]):
            print(f"# Trained after {', '.join(below)}, whose options are --{next(iter(below))}.section.key VALUE.")
        print(tomli_w.dumps(to_dict(chosen)), end="")
        return
    width = max(map(len, RECIPES))
    for name, entry in RECIPES.items():
        print(f"{name:{width}s}  {entry.about}")
    print("\nunstir recipes NAME shows one whole; unstir train NAME --data SOURCE trains it.")
