"""What a training leaves in its folder: whole or refused, whatever happens to disk and files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from tests.training.small import E0, SETTINGS, SMALL, graphs, killed_after, small_network, train

from pretrain_mlip import keys
from pretrain_mlip.errors import InputError
from pretrain_mlip.potentials.checkpoint import read_checkpoint
from pretrain_mlip.potentials.networks import build_model
from pretrain_mlip.training.loop import Training
from pretrain_mlip.training.state import is_finished


def test_a_damaged_state_falls_back_to_the_one_before(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = train(tmp_path)
    content = (tmp_path / "last.pt").read_bytes()
    (tmp_path / "last.pt").write_bytes(content[: len(content) // 2])
    assert not is_finished(tmp_path)
    again = train(tmp_path)
    assert "not a readable checkpoint" in caplog.text
    assert "going on from before.pt" in caplog.text
    assert is_finished(tmp_path)
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, again.network.state_dict()[name])
    for name in ("last.pt", "before.pt"):
        (tmp_path / name).write_bytes(b"nothing")
    with pytest.raises(InputError, match="to train anew"):
        train(tmp_path)


def test_finished_training_is_not_repeated(tmp_path: Path) -> None:
    train(tmp_path)
    before = (tmp_path / "last.pt").stat().st_mtime_ns
    assert train(tmp_path).steps == 15
    assert (tmp_path / "last.pt").stat().st_mtime_ns == before


def flip_a_weight(path: Path) -> None:
    """Change one bit of the first tensor of more than a few numbers."""
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        tensor = next(info for info in archive.infolist() if "/data/" in info.filename and info.file_size >= 64)
        place = content.index(archive.read(tensor), tensor.header_offset)
    content[place + 3] ^= 1
    path.write_bytes(bytes(content))


def test_a_bit_that_a_disk_has_changed_is_found(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """torch.load reads such a file without a word."""
    whole = train(tmp_path)
    flip_a_weight(tmp_path / "last.pt")
    assert torch.load(tmp_path / "last.pt", weights_only=True)["format"] == "pretrain-mlip"
    assert not is_finished(tmp_path)
    again = train(tmp_path)
    assert "last.pt: damaged" in caplog.text
    assert "going on from before.pt" in caplog.text
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, again.network.state_dict()[name])


def test_a_damaged_directory_of_the_archive_is_found(tmp_path: Path) -> None:
    """A changed method of compression, which inflates what was never compressed."""
    train(tmp_path, SETTINGS.model_copy(update={"epochs": 1}))
    content = bytearray((tmp_path / "last.pt").read_bytes())
    content[content.rindex(b"PK\x01\x02") + 10] ^= 8
    (tmp_path / "last.pt").write_bytes(bytes(content))
    with pytest.raises(InputError, match=r"last\.pt: (not a readable checkpoint|damaged)"):
        read_checkpoint(tmp_path / "last.pt")


def test_the_best_potential_is_not_made_up_where_it_is_lost(tmp_path: Path) -> None:
    train(tmp_path)
    best = tmp_path / "best.pt"
    content = best.read_bytes()
    remedy = "no other file has it: remove .* to train anew"
    best.unlink()
    for ask in (lambda: is_finished(tmp_path), lambda: train(tmp_path)):
        with pytest.raises(InputError, match=rf"best\.pt: no such file; .*{remedy}"):
            ask()
    best.write_bytes(content[:-100])
    with pytest.raises(InputError, match=rf"not a readable checkpoint.*{remedy}"):
        train(tmp_path)
    best.write_bytes(content)
    flip_a_weight(best)
    with pytest.raises(InputError, match=rf"best\.pt: damaged .*{remedy}"):
        is_finished(tmp_path)


def test_a_best_potential_that_is_lost_is_told_before_more_is_trained(tmp_path: Path) -> None:
    with killed_after(3):
        train(tmp_path)
    (tmp_path / "best.pt").unlink()
    before = (tmp_path / "log.csv").read_text()
    with pytest.raises(InputError, match="no other file has it"):
        train(tmp_path)
    assert (tmp_path / "log.csv").read_text() == before


FULL = """
import resource, signal, sys
from pathlib import Path
from tests.training.small import SETTINGS, train
folder = Path(sys.argv[1])
size = (folder / "last.pt").stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, size // 2))  # what a disk does that fills up within a write
try:
    train(folder, SETTINGS.model_copy(update={"epochs": 1, "patience": 3}), seed=7)
except Exception as error:
    print(type(error).__name__, error)
"""


def test_a_disk_that_fills_up_leaves_the_state_before(tmp_path: Path) -> None:
    train(tmp_path / "one", SETTINGS.model_copy(update={"epochs": 1, "patience": 3}), seed=7)
    (tmp_path / "one" / "best.pt").rename(tmp_path / "best.pt")
    state = read_checkpoint(tmp_path / "one" / "last.pt")
    state["training"].update(finished=False, epoch=0, step=0, best_epoch=0, best=float("inf"), history=[])
    torch.save(state, tmp_path / "one" / "last.pt")
    before = (tmp_path / "one" / "last.pt").read_bytes()
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))}
    command = [sys.executable, "-c", FULL, str(tmp_path / "one")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.startswith("ComputationError")
    assert "cannot be written (File too large); the checkpoint before is unharmed: make room" in done.stdout
    assert (tmp_path / "one" / "last.pt").read_bytes() == before
    assert not list((tmp_path / "one").glob(".tmp-*"))


def test_refuses_to_continue_something_else(tmp_path: Path) -> None:
    train(tmp_path)
    with pytest.raises(InputError, match=r"another training \(learning_rate was 0\.01, is 0\.02\); resume"):
        train(tmp_path, SETTINGS.model_copy(update={"learning_rate": 0.02}))
    with pytest.raises(InputError, match=r"another training \(seed was 0, is 5\)"):
        train(tmp_path, seed=5)
    with pytest.raises(InputError, match=r"another training \(replay_size was 0, is 1\)"):
        train(tmp_path, replayed=graphs(11, 13), replay_size=1)
    other = build_model("cgcnn", E0.elements, seed=1, **{**SMALL, "cutoff": 3.4})
    with pytest.raises(InputError, match=r"another training \(network\.hyperparameters\.cutoff was 3\.5, is 3\.4\)"):
        Training(other, graphs(0, 8), graphs(8, 11), SETTINGS, tmp_path).run()
    frozen = small_network()
    frozen.embedding.weight.requires_grad_(False)
    with pytest.raises(InputError, match=r"another training \(frozen was \[\], is \['embedding\.weight'\]\)"):
        Training(frozen, graphs(0, 8), graphs(8, 11), SETTINGS, tmp_path).run()
    content = read_checkpoint(tmp_path / "last.pt")
    del content["training"]["identity"]
    shutil.copytree(tmp_path, tmp_path / "old")
    torch.save(content, tmp_path / "old" / "last.pt")
    with pytest.raises(InputError, match="was written by an earlier version"):
        train(tmp_path / "old")
    data = graphs(0, 8)
    data[3][keys.ENERGY] += 1e-3
    with pytest.raises(InputError, match="the structures, their labels or their weights have changed since"):
        Training(small_network(), data, graphs(8, 11), SETTINGS, tmp_path).run()
