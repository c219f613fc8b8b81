"""Checkpoints survive damage, full disks and being killed."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from unstir.errors import UserError
from unstir.training.checkpoint import Checkpoints, write_atomically


def state(step: int) -> dict:
    return {"step": step, "x": torch.full((1000,), float(step))}


def test_the_newest_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (1, 2, 30):
        checkpoints.save(step, state(step))
    assert checkpoints.steps() == [2, 30]
    loaded, broken = checkpoints.load()
    assert torch.equal(loaded["x"], state(30)["x"])
    assert broken == []


@pytest.mark.parametrize(
    "damage",
    [lambda p: p.write_bytes(p.read_bytes()[:900]), lambda p: p.write_bytes(b""), lambda p: p.write_text("no")],
)
def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path: Path, damage) -> None:
    checkpoints = Checkpoints(tmp_path, keep=3)
    checkpoints.save(1, state(1))
    checkpoints.save(2, state(2))
    damage(checkpoints.path(2))
    loaded, broken = checkpoints.load()
    assert loaded["step"] == 1
    assert broken == ["step-000000002.pt"]
    damage(checkpoints.path(1))
    with pytest.raises(UserError, match=r"damaged: step-000000002\.pt, step-000000001\.pt"):
        checkpoints.load()


def test_a_flipped_bit_inside_a_tensor_is_noticed(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=3)
    checkpoints.save(1, state(1))
    checkpoints.save(2, state(2))
    data = bytearray(checkpoints.path(2).read_bytes())
    at = data.index(torch.full((1,), 2.0).numpy().tobytes() * 100) + 40
    data[at] ^= 1
    checkpoints.path(2).write_bytes(bytes(data))
    assert checkpoints.load()[0]["step"] == 1


def test_leftovers_of_a_killed_writer_are_swept_away(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=3)
    checkpoints.save(1, state(1))
    (tmp_path / ".step-000000002.pt.99.tmp").write_bytes(b"half")
    checkpoints.load()
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000001.pt"]


def test_nothing_to_resume(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no checkpoint"):
        Checkpoints(tmp_path / "none", keep=1).load()


FULL_DISK = """
import resource, signal, sys, torch
from pathlib import Path
from unstir.training.checkpoint import Checkpoints
from unstir.errors import UserError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
checkpoints = Checkpoints(Path(sys.argv[1]), keep=1)
checkpoints.save(1, {"step": 1, "x": torch.zeros(1000)})
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))  # writing past this fails, as on a full disk
try:
    checkpoints.save(2, {"step": 2, "x": torch.zeros(1_000_000)})
except UserError as error:
    print("refused:", error)
print(checkpoints.load()[0]["step"], sorted(p.name for p in Path(sys.argv[1]).iterdir()))
"""


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="needs a limit on file sizes")
def test_a_full_disk_leaves_the_previous_checkpoint(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True, check=True)
    refused, rest = done.stdout.splitlines()
    assert refused.startswith(f"refused: could not write {tmp_path / 'step-000000002.pt'}")
    assert rest == "1 ['step-000000001.pt']"


def test_a_crash_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def crash(file) -> None:
        file.write(b"half")
        raise OSError("gone")

    with pytest.raises(UserError, match="could not write"):
        write_atomically(path, crash)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
