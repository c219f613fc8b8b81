"""The table of metrics: of samples in a feature space. What judges the model itself, its likelihood, is in ``nll``; what judges samples by
their captions in ``retrieval``."""

from __future__ import annotations

from collections.abc import Iterable

from unstir.errors import UserError, did_you_mean
from unstir.evaluation.frechet import Frechet
from unstir.evaluation.inception_score import InceptionScore
from unstir.evaluation.kernel import KernelDistance
from unstir.evaluation.manifold import PrecisionRecall
from unstir.evaluation.metric import Metric
from unstir.evaluation.neighbours import Neighbours

METRICS: dict[str, type[Metric]] = {
    "fd": Frechet,
    "kd": KernelDistance,
    "is": InceptionScore,
    "pr": PrecisionRecall,
    "neighbours": Neighbours,
}

NLL = "nll"
"""The name of the negative log-likelihood, which looks at no samples."""
RETRIEVAL = "retrieval"
"""The name of the retrieval of captions, which looks through a CLIP."""
ALSO_CALLED = {"fid": "fd", "kid": "kd"}
"""The field's names. The names in reports stay those of what was computed: FID and KID only in the real Inception's features."""


def metrics(names: Iterable[str]) -> dict[str, Metric]:
    """Metrics of samples by their names, each once, in the order given; nll and retrieval, which are none, are passed over.

    Raises:
        UserError: an unknown name.
    """
    chosen: dict[str, Metric] = {}
    for name in names:
        key = ALSO_CALLED.get(name, name)
        if key in (NLL, RETRIEVAL):
            continue
        if key not in METRICS:
            raise UserError(f"unknown metric '{name}'; {did_you_mean(name, [*METRICS, NLL, RETRIEVAL])}")
        chosen[key] = METRICS[key]()
    return chosen
