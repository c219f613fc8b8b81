"""The whole of an evaluation on a feature space made here: sharing, caching, floors, sources, reports."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from unstir.data import DataConfig, Dataset, load
from unstir.errors import UserError
from unstir.evaluation.embed import Embedder
from unstir.evaluation.evaluate import Evaluation
from unstir.evaluation.frechet import frechet_distance
from unstir.evaluation.kernel import kernel_distance
from unstir.evaluation.metric import Embedded, Value
from unstir.evaluation.metrics import METRICS, metrics
from unstir.evaluation.moments import Moments
from unstir.evaluation.neighbours import Neighbours
from unstir.evaluation.pairs import pairs_picture
from unstir.evaluation.record import append, last
from unstir.evaluation.reference import reference, subset
from unstir.evaluation.report import Report
from unstir.evaluation.samples import DataSource, as_files_hold, check_alike, order, rows_of


@dataclasses.dataclass
class FakeFeatures:
    vectors: torch.Tensor
    probabilities: torch.Tensor | None = None


class FakeSpace:
    """The data themselves, flat; counts how many it was given."""

    name = "flat"
    frechet_name = "FD"

    def __init__(self, fingerprint: str = "flat-1", classes: int = 0) -> None:
        self.fingerprint = fingerprint
        self.classes = classes
        self.seen = 0

    def __call__(self, x: np.ndarray[Any, Any]) -> FakeFeatures:
        self.seen += len(x)
        vectors = torch.from_numpy(np.array(x)).float().flatten(1)
        return FakeFeatures(vectors, vectors[:, : self.classes].softmax(1) if self.classes else None)


def embedder(space: FakeSpace, batch_size: int = 7) -> Embedder:
    return Embedder(space, Accelerator(), batch_size)  # type: ignore[arg-type]


def points(folder: Path, n: int, shift: float = 0.0, seed: int = 0, dimension: int = 3) -> Dataset:
    path = folder / f"points-{n}-{shift}-{seed}-{dimension}.npy"
    np.save(path, (np.random.default_rng(seed).normal(size=(n, dimension)) + shift).astype(np.float32))
    return load(DataConfig(source=str(path)))


def test_values_are_the_functions_of_all_features(tmp_path: Path) -> None:
    data, other = points(tmp_path, 60), points(tmp_path, 50, 0.3, seed=1)
    judge = Evaluation(metrics(["fd", "kid", "pr", "neighbours"]), data, tmp_path)
    report = judge(DataSource(other), 40, embedder(FakeSpace()))
    x = torch.from_numpy(other.x[order(50)[:40]])
    y = torch.from_numpy(data.x[order(60)])
    assert report.values["fd"].value == pytest.approx(frechet_distance(Moments.of(x), Moments.of(y)), rel=1e-12)
    value, error = kernel_distance(x, y)
    assert (report.values["kd"].value, report.values["kd"].error) == pytest.approx((value, error), rel=1e-9)
    assert set(report.values) == {"fd", "kd", "pr", "neighbours"}
    assert set(report.floors) == {"fd", "kd", "pr"}
    # 60 samples of data, 40 to judge: no 40 to spare beyond the reference, so half of it against the other half
    assert (report.floor_n, report.rest_n) == (30, 30)
    floor = frechet_distance(Moments.of(y[30:]), Moments.of(y[:30]))
    assert report.floors["fd"].value == pytest.approx(floor, rel=1e-12)


def test_the_floor_is_other_real_samples_where_there_are_enough(tmp_path: Path) -> None:
    data = points(tmp_path, 200)
    found = reference(data, 50, embedder(FakeSpace()), tmp_path, limit=120)
    rows = order(200)
    np.testing.assert_array_equal(found.features.vectors, data.x[rows[:120]])
    np.testing.assert_array_equal(found.real.vectors, data.x[rows[120:170]])
    assert found.rest is found.features


def test_batches_do_not_matter(tmp_path: Path) -> None:
    data = points(tmp_path, 61)
    results = [embedder(FakeSpace(), size)(DataSource(data).draw, 50, "", blocks=4) for size in (1, 7, 64)]
    for result in results[1:]:
        assert torch.equal(result.all_vectors(), results[0].all_vectors())
        for a, b in zip(result.blocks, results[0].blocks, strict=True):
            torch.testing.assert_close(a.scatter, b.scatter, rtol=1e-12, atol=1e-12)
    light = embedder(FakeSpace())(DataSource(data).draw, 50, "", keep=False)
    assert light.vectors is None
    torch.testing.assert_close(light.moments.scatter, results[0].moments.scatter, rtol=1e-12, atol=1e-12)


def test_the_reference_is_cached_and_a_damaged_cache_computed_again(tmp_path: Path) -> None:
    data, space = points(tmp_path, 80), FakeSpace(classes=2)
    first = subset(data, embedder(space), tmp_path)
    assert space.seen == 80
    again = subset(data, embedder(space), tmp_path)
    assert space.seen == 80
    assert torch.equal(first.all_vectors(), again.all_vectors())
    assert first.probabilities is not None
    assert again.probabilities is not None
    assert torch.equal(first.probabilities, again.probabilities)
    (file,) = (tmp_path / "features").iterdir()
    whole = file.read_bytes()
    for broken in (b"", whole[:200], whole[:150] + b"\xff\xff\xff\xff" + whole[154:]):
        file.write_bytes(broken)
        before = space.seen
        assert torch.equal(subset(data, embedder(space), tmp_path).all_vectors(), first.all_vectors())
        assert space.seen == before + 80
        assert file.read_bytes() == whole
    # another space, other data or another subset are other entries
    for others in (lambda: subset(data, embedder(FakeSpace("flat-2")), tmp_path),
                   lambda: subset(points(tmp_path, 80, seed=5), embedder(space), tmp_path),
                   lambda: subset(data, embedder(space), tmp_path, limit=40)):  # fmt: skip
        count = len(list((tmp_path / "features").iterdir()))
        others()
        assert len(list((tmp_path / "features").iterdir())) == count + 1


def test_held_out_data_for_the_memorisation_check(tmp_path: Path) -> None:
    training, held, samples = points(tmp_path, 90), points(tmp_path, 70, seed=1), points(tmp_path, 50, seed=2)
    report = Evaluation(metrics(["neighbours"]), held, tmp_path, training)(
        DataSource(samples), 50, embedder(FakeSpace())
    )
    x, t, h = (torch.from_numpy(d.x[order(len(d))]) for d in (samples, training, held))
    expected = Neighbours().compute(Embedded.of(x), Embedded.of(t), Embedded.of(h))
    assert report.values["neighbours"].value == pytest.approx(expected.value, rel=1e-12)
    assert report.values["neighbours"].extra["searched"] == 90


def test_the_picture_shows_copies_beside_what_they_copy(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(256, size=(40, 8, 8, 3), dtype=np.uint8)
    y = np.concatenate([rng.integers(256, size=(30, 8, 8, 3), dtype=np.uint8), x[[5, 17]]])
    for name, array in (("x", x), ("y", y)):
        np.savez(tmp_path / f"{name}.npz", arr_0=array)
    data, samples = (load(DataConfig(source=str(tmp_path / f"{name}.npz"))) for name in "xy")
    source = DataSource(samples)
    found = Neighbours().compute(
        embedder(FakeSpace())(source.draw, 32, ""), subset(data, embedder(FakeSpace()), tmp_path)
    )
    assert {source.row(i) for i in found.order[:2].tolist()} == {30, 31}
    picture = np.asarray(pairs_picture(source, data, found, pairs=2))
    scale = 96 // 8  # cells of 96 pixels with 2 between them
    cells = [picture[2 : 2 + 96 : scale, 2 + i * 98 : 2 + i * 98 + 96 : scale] for i in range(4)]
    np.testing.assert_array_equal(cells[0], cells[1])
    np.testing.assert_array_equal(cells[2], cells[3])
    assert {cells[0].tobytes(), cells[2].tobytes()} == {x[5].tobytes(), x[17].tobytes()}


def test_what_cannot_be_judged(tmp_path: Path) -> None:
    data, wide = points(tmp_path, 60), points(tmp_path, 60, dimension=4)
    judge = Evaluation(metrics(["fd"]), data, tmp_path)
    for source, n, expected in (
        (data, 1, "cannot be judged by 1 sample"),
        (data, 61, "holds 60 samples, fewer than -n 61"),
        (wide, 60, "points of shape 4, floats"),
    ):
        with pytest.raises(UserError, match=expected):
            judge(DataSource(source), n, embedder(FakeSpace()))
    with pytest.raises(UserError, match="needs a classifier's probabilities, which the features 'flat'"):
        Evaluation(metrics(["is"]), data, tmp_path)(DataSource(data), 60, embedder(FakeSpace()))


def test_pictures_of_other_sizes_or_channels_are_told_both(tmp_path: Path) -> None:
    specs = []
    for name, shape in (("a", (5, 8, 8, 3)), ("b", (5, 8, 8, 1)), ("c", (5, 16, 16, 3))):
        np.save(tmp_path / f"{name}.npy", np.zeros(shape, np.uint8))
        specs.append(load(DataConfig(source=str(tmp_path / f"{name}.npy"))).spec)
    check_alike(specs[0], specs[0], ("a", "a"))
    for other, shape in ((specs[1], "8x8x1"), (specs[2], "16x16x3")):
        with pytest.raises(UserError, match="A holds image of shape 8x8x3, uint8, and B image of shape " + shape):
            check_alike(specs[0], other, ("A", "B"))


def test_files_hold_rounded_bytes_channels_last(tmp_path: Path) -> None:
    x = np.random.default_rng(0).random((6, 3, 8, 8)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    data = load(DataConfig(source=str(tmp_path / "x.npy")))
    held = rows_of(data, np.arange(6))
    assert held.dtype == np.uint8
    np.testing.assert_array_equal(held, np.rint(255 * np.moveaxis(x, 1, -1)))
    assert as_files_hold(x[:2], data.spec).shape == (2, 8, 8, 3)


def test_metric_names() -> None:
    assert list(metrics(["kid", "fd", "fid"])) == ["kd", "fd"]
    assert list(METRICS) == ["fd", "kd", "is", "pr", "neighbours"]
    with pytest.raises(UserError, match="unknown metric 'neighbors'; did you mean neighbours"):
        metrics(["neighbors"])
    assert list(metrics(["fd", "nll"])) == ["fd"]  # nll looks at no samples


def report(fid: bool = False, n: int = 3000, reference_n: int = 10_000, dimension: int = 64) -> Report:
    values = {"fd": Value(12.34567, 0.4321), "kd": Value(0.01, math.nan, {"bad": math.nan})}
    return Report(
        "s",
        "r",
        "space",
        fid,
        n,
        reference_n,
        metrics(["fd", "kd"]),
        values,
        {"fd": Value(1.1)},
        3000,
        10_000,
        dimension,
    )


def test_a_number_is_printed_with_its_space_and_count() -> None:
    assert report().table()[0] == "FD[space, n=3000]  12.35 ± 0.4   (real data: 1.1)"
    assert report(fid=True).table()[0].startswith("FID[space, n=3000]")
    assert report(fid=True).table()[1].startswith("KID[space, n=3000]")
    assert "FID" not in "\n".join(report().lines())


def test_json_is_the_contract_and_has_no_nan() -> None:
    found = report().to_json()
    assert found["fd"] == {
        "value": 12.34567, "error": 0.4321, "features": "space", "n": 3000, "reference": "r", "reference_n": 10_000,
        "real": {"value": 1.1, "n": 3000, "reference_n": 10_000},
    }  # fmt: skip
    assert found["kd"]["error"] is None
    assert found["kd"]["bad"] is None


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"n": 10_000}, []),
        ({"n": 3000}, ["good for comparing like with like"]),
        ({"n": 500}, ["is few"]),
        ({"n": 3000, "dimension": 4096}, ["rank-deficient", "like with like"]),
        ({"n": 10_000, "reference_n": 9000}, ["fewer reference samples (9,000) than samples (10,000)"]),
        ({"n": 20_000, "reference_n": 1000, "dimension": 1280}, ["rank-deficient", "fewer reference"]),
    ],
)
def test_warnings(changes: dict[str, int], expected: list[str]) -> None:
    found = report(**changes).warnings()  # type: ignore[arg-type]
    assert len(found) == len(expected)
    for line, words in zip(found, expected, strict=True):
        assert words in line


def test_the_record_survives_a_line_cut_short(tmp_path: Path) -> None:
    assert last(tmp_path) is None
    append(tmp_path, report())
    append(tmp_path, report(n=7))
    with (tmp_path / "evaluation.jsonl").open("a") as file:
        file.write('{"date": "2')
    row = last(tmp_path)
    assert row is not None
    assert row["results"]["fd"]["n"] == 7
    assert row["lines"] == report(n=7).table()
