"""Conditions that are computed from the sample itself: a smaller copy of it, its edges, its coarse colours, what is left of it around a hole,
the vector that a CLIP gives it.

A network that is trained with one of them can be asked for samples that have such edges, such a smaller copy, ... A new one is a
frozen dataclass and a line in ``DERIVED``; ``Recipe.derived`` chooses one.
"""

from unstir.conditioning.derived.derived import Derived, Nothing
from unstir.conditioning.derived.edges import Edges
from unstir.conditioning.derived.hole import Hole
from unstir.conditioning.derived.image_embedding import ImageEmbedding
from unstir.conditioning.derived.low_res import LowRes
from unstir.conditioning.derived.posterized import Posterized

DERIVED: dict[str, type[Derived]] = {
    "nothing": Nothing,
    "low-res": LowRes,
    "edges": Edges,
    "posterized": Posterized,
    "hole": Hole,
    "image-embedding": ImageEmbedding,
}

__all__ = ["DERIVED", "Derived", "Edges", "Hole", "ImageEmbedding", "LowRes", "Nothing", "Posterized"]
