import pytest
from tests.conftest import DATA_FOLDER

from pretrain_mlip.structures.checks import check_structures, summarise
from pretrain_mlip.structures.io import read_structures

FILES = sorted(DATA_FOLDER.glob("*.extxyz*"))


@pytest.mark.skipif(not FILES, reason="no folder with larger data sets; set PRETRAIN_MLIP_DATA")
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_real_data_are_read_and_have_no_errors(path):
    frames = read_structures(path)
    summary = summarise(frames)
    assert summary["labels"]["energy"] == summary["labels"]["forces"] == len(frames)
    findings = check_structures(frames)
    assert not [finding for finding in findings if finding.severity == "error"]
    assert not {"force units", "stress units", "close pairs", "cell"} & {finding.check for finding in findings}
