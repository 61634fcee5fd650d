import os
from pathlib import Path

import pytest

from pretrain_mlip.structures.checks import check_structures, summarise
from pretrain_mlip.structures.io import read_structures

FOLDER = Path(os.environ.get("PRETRAIN_MLIP_DATA", Path(__file__).parents[3] / "shared" / "data"))
FILES = sorted(FOLDER.glob("*.extxyz*")) if FOLDER.is_dir() else []


@pytest.mark.skipif(not FILES, reason="no data in PRETRAIN_MLIP_DATA")
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_real_data_are_read_and_have_no_errors(path):
    frames = read_structures(path)
    summary = summarise(frames)
    assert summary["labels"]["energy"] == summary["labels"]["forces"] == len(frames)
    findings = check_structures(frames)
    assert not [finding for finding in findings if finding.severity == "error"]
    assert not {"force units", "stress units", "close pairs", "cell"} & {finding.check for finding in findings}
