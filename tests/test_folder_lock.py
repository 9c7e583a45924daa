"""One process writes a run's folder at a time."""

import subprocess
import sys
from pathlib import Path

import pytest

from forgetmenot.folder_lock import only_writer

HOLDING = "import sys, time\nfrom pathlib import Path\nfrom forgetmenot.folder_lock import only_writer\n" \
    "with only_writer(Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(60)\n"  # fmt: skip


def test_a_folder_that_another_process_writes_is_refused_until_that_is_killed(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDING, str(tmp_path)], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline() == b"held\n"
        with pytest.raises(ValueError, match=r"be a folder that no other process writes, got "), only_writer(tmp_path):
            pass
        other.kill()
        other.wait()
        with only_writer(tmp_path):
            pass
    assert list(tmp_path.iterdir()) == [], "the lock leaves nothing behind"
