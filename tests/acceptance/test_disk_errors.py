"""What the disk refuses at the start is said in a line, like any other error."""

import subprocess
import sys


def test_a_folder_that_cannot_be_made_is_named_without_a_traceback(tmp_path):
    taken = tmp_path / "a file"
    taken.write_text("")
    call = [
        sys.executable,
        "-m",
        "consumer",
        "worker",
        "--brokers",
        "127.0.0.1:1",
        "--state",
        str(taken / "below"),
    ]
    ended = subprocess.run(call, capture_output=True, text=True, timeout=60, check=False)
    assert 1 == ended.returncode
    assert str(taken) in ended.stderr
    assert "Traceback" not in ended.stderr
