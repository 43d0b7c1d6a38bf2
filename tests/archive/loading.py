"""Repositories read back as their users do: ``datasets.load_dataset`` on a folder, in a process of its own, offline."""

import json
import subprocess
import sys
from pathlib import Path

_CODE = """
import json, sys
import datasets
datasets.disable_progress_bars()
folder, cache, wanted = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
found = {}
for config in wanted if wanted is not None else datasets.get_dataset_config_names(folder):
    loaded = datasets.load_dataset(folder, config, cache_dir=cache)
    found[config] = {split: list(rows) for split, rows in loaded.items()}
json.dump(found, sys.stdout)
"""


def load(folder: Path, scratch: Path, configs=None):
    """Configuration to split to rows, of those named or of all."""
    done = subprocess.run(
        [sys.executable, "-c", _CODE, str(folder), str(scratch / "cache"), json.dumps(configs)],
        check=False,
        env={
            "PATH": "/usr/bin:/bin",
            "HOME": str(scratch),
            "HF_HOME": str(scratch / "hf"),
            "HF_HUB_OFFLINE": "1",
            "HF_DATASETS_OFFLINE": "1",
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)
