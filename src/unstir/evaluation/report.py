"""Results, as people read them and as programs do."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from unstir.evaluation.metric import Metric, Row, Value

if TYPE_CHECKING:
    from unstir.evaluation.nll import NLL
    from unstir.evaluation.reconstruction import Reconstructed
    from unstir.evaluation.retrieval import Retrieval

INCEPTION_NAMES = {"FD": "FID", "KD": "KID"}
"""What the field calls these in the real Inception's features, and in no others."""
FEW, MANY = 2048, 10_000


@dataclass(frozen=True)
class Report:
    """An evaluation's outcome.

    Args:
        samples, reference: names of what was judged and of what it was held against.
        space: the feature space's name.
        fid: whether that space is the one whose Fréchet distance is called FID.
        n, reference_n: counts.
        metrics, values: by the metrics' names.
        floors: the same for real samples (``floor_n`` of them, against ``rest_n``): what a perfect model would get.
        dimension: of the features.
        about: settings, seed, time and hardware, for the record.
        nll: the likelihood of data under the model, where it was asked for; there need be no metrics of samples then.
        retrieval: of the samples' captions, likewise.
        reconstruction: how well an autoencoder gives its samples back, where these are what it gave back.
    """

    samples: str
    reference: str
    space: str
    fid: bool
    n: int
    reference_n: int
    metrics: Mapping[str, Metric]
    values: Mapping[str, Value]
    floors: Mapping[str, Value] = field(default_factory=dict)
    floor_n: int = 0
    rest_n: int = 0
    dimension: int = 0
    about: Mapping[str, Any] = field(default_factory=dict)
    nll: NLL | None = None
    retrieval: Retrieval | None = None
    reconstruction: Reconstructed | None = None

    @classmethod
    def of_likelihood(cls, samples: str, nll: NLL, about: Mapping[str, Any]) -> Report:
        """Of a likelihood alone."""
        return cls(samples, nll.data, "", False, nll.n, nll.n, {}, {}, about=about, nll=nll)

    @classmethod
    def of_retrieval(cls, samples: str, reference: str, found: Retrieval, about: Mapping[str, Any]) -> Report:
        """Of the retrieval of captions alone."""
        return cls(samples, reference, "", False, found.n, found.n, {}, {}, about=about, retrieval=found)

    def title(self, row: Row) -> str:
        """'FD[efficientnet-lite0, n=10000]': a number's name with its space and count."""
        name = INCEPTION_NAMES.get(row.name, row.name) if self.fid else row.name
        about = row.about if "n=" in row.about else ", ".join(filter(None, [row.about, f"n={self.n}"]))
        return f"{name}[{self.space}, {about}]"

    def table(self) -> list[str]:
        """A line for each number, with what real data would get."""
        lines: list[tuple[str, str]] = []
        for key, metric in self.metrics.items():
            floors = metric.rows(self.floors[key]) if key in self.floors else []
            for i, row in enumerate(metric.rows(self.values[key])):
                text = format(row.value, row.unit)
                if row.error is not None and math.isfinite(row.error):
                    text += f" ± {format(row.error, '.1g' if row.unit == '.4g' else row.unit)}"
                if floors:
                    text += f"   (real data: {format(floors[i].value, row.unit)})"
                lines.append((self.title(row), text))
        for part in (self.retrieval, self.reconstruction):
            lines += [] if part is None else part.rows()
        if self.nll is not None:
            lines.append(self.nll.row())
        width = max((len(title) for title, _ in lines), default=0)
        return [f"{title:{width}s}  {text}" for title, text in lines]

    def lines(self) -> list[str]:
        """Everything a person should read."""
        head = f"{self.samples}: {self.n:,} samples against {self.reference_n:,} of {self.reference}"
        if not self.metrics and self.retrieval is not None:
            head = f"{self.samples}: {self.n:,} samples and their captions"
        elif not self.metrics:
            head = f"{self.samples}: the likelihood of {self.n:,} samples of {self.reference}"
        foot = []
        if self.floors:
            foot = [f"real data: {self.floor_n:,} other samples of {self.reference} against {self.rest_n:,} of it"]
        return [
            head,
            *(f"  {line}" for line in [*self.table(), *foot]),
            *(f"warning: {line}" for line in self.warnings()),
        ]

    def warnings(self) -> list[str]:
        """What makes these numbers less than they seem."""
        found = [line for part in self._parts().values() for line in part.warnings()]
        fewest = min(self.n, self.reference_n)
        if "fd" in self.values:
            if fewest <= self.dimension:
                found.append(
                    f"{fewest:,} samples in {self.dimension} dimensions: the covariance is rank-deficient and the Fréchet distance "
                    "far too large; compare it only with others of exactly these counts, or take the kernel distance"
                )
            if self.n < FEW:
                found.append(
                    f"n={self.n:,} is few: the Fréchet distance is biased upwards below some {FEW:,} samples, and noisy"
                )
            elif self.n < MANY:
                found.append(
                    f"n={self.n:,}: good for comparing like with like; published distances use {MANY:,} to 50,000"
                )
        if self.reference_n < self.n:
            found.append(
                f"fewer reference samples ({self.reference_n:,}) than samples ({self.n:,}): the reference limits the numbers"
            )
        return found

    def to_json(self) -> dict[str, Any]:
        """Plain values: for each metric its value, error, features, counts, and what real data would get."""
        found = {key: self._one(key, value) for key, value in self.values.items()}
        return found | {key: _finite(part.to_json()) for key, part in self._parts().items()}

    def _parts(self) -> dict[str, Retrieval | NLL | Reconstructed]:
        """What there is beside the metrics, by its name in JSON."""
        parts = {"retrieval": self.retrieval, "nll": self.nll, "reconstruction": self.reconstruction}
        return {key: part for key, part in parts.items() if part is not None}

    def _one(self, key: str, value: Value) -> dict[str, Any]:
        entry: dict[str, Any] = {
            "value": value.value,
            "error": value.error,
            "features": self.space,
            "n": self.n,
            "reference": self.reference,
            "reference_n": self.reference_n,
            **value.extra,
        }
        if key in self.floors:
            floor = self.floors[key]
            entry["real"] = {"value": floor.value, "n": self.floor_n, "reference_n": self.rest_n, **floor.extra}
        return _finite(entry)


def _finite(values: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no NaN. (Lists hold none.)"""
    return {
        key: _finite(v) if isinstance(v, Mapping) else None if isinstance(v, float) and not math.isfinite(v) else v
        for key, v in values.items()
    }
