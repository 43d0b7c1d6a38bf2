"""lmms-eval's own `EvaluationTracker.save_results_samples`, from its wheel, writes a samples file's rows.

Before the clock starts, the rows are in memory in the form in which lmms-eval's evaluator hands them over, as
they are at the end of an evaluation. Its package is installed without what it depends on: `torch`,
`transformers`, `datasets` and `huggingface_hub` are imported by the tracker's modules, and not used by this
method unless it uploads, so empty modules stand in for them, and for the other loggers of its package.
"""

import json
import sys
import types
from pathlib import Path

from stamps import Stamps

STAND_INS = (
    *("torch", "transformers", "datasets", "datasets.utils", "datasets.utils.metadata"),
    *("huggingface_hub", "huggingface_hub.utils"),
)


class _Anything(types.ModuleType):
    """A module that has every name."""

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def tracker(output: Path) -> object:
    """lmms-eval's tracker, told to write below `output`."""
    for name in STAND_INS:
        sys.modules[name] = _Anything(name)
    import lmms_eval  # noqa: PLC0415 - after the stand-ins

    loggers = types.ModuleType("lmms_eval.loggers")
    loggers.__path__ = [str(Path(next(iter(lmms_eval.__path__)), "loggers"))]
    sys.modules["lmms_eval.loggers"] = loggers  # its __init__ imports all of them
    from lmms_eval.loggers.evaluation_tracker import EvaluationTracker  # noqa: PLC0415

    made = EvaluationTracker(output_path=str(output))
    made.general_config_tracker.model_name_sanitized = "org__model"
    made.date_id = "20260101_000000"
    return made


def evaluated(line: str) -> dict[str, object]:
    """A row as the evaluator has it before it is saved."""
    row = json.loads(line)
    question, answer = row.pop("input"), row.pop("filtered_resps")
    return {
        "doc_id": row.pop("doc_id"),
        "doc": None,
        "target": row.pop("target"),
        "arguments": [question],
        "resps": [[answer]],
        "filtered_resps": [answer],
        **row,
    }


def main() -> None:
    source, output = Path(sys.argv[1]), Path(sys.argv[2])
    saving = tracker(output)
    with source.open(encoding="utf-8", newline="\n") as lines:
        rows = [evaluated(line) for line in lines]
    stamps = Stamps()
    stamps.mark("ready")
    stamps.first()
    count = len(rows)
    saving.save_results_samples(task_name="bench_task_0", samples=rows)  # type: ignore[attr-defined]  # no types
    stamps.mark("read")
    [written] = output.rglob("*_samples_*.jsonl")
    with written.open("rb") as file:
        assert sum(1 for _ in file) == count, "it wrote all rows"  # it swallows its errors
    stamps.tell(count)


if __name__ == "__main__":
    main()
