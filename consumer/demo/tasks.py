"""The tasks of the synthetic evaluation and their rows, in the form lmms-eval writes them.

Invariants: a row is a function of (seed, task, filter, doc_id) alone. Two rows hold what Python's
``json.dumps`` lets through and strict JSON does not know: a bare NaN, half an emoji.
"""

import json
from collections.abc import Callable
from random import Random
from typing import Any

from msgspec import Raw, Struct

from consumer.demo.phrases import LANGUAGES, SIGNS
from schemas.events import Sample

DOC_HASH = "74234e98afe7498fb5daf1f36ac2d78acc339464f950703b8c019892f982b90b"
"""What lmms-eval writes for every document: sha256 of ``null``."""

NAN_DOC = 3
HALF_EMOJI_DOC = 5
REPEATS = 4
QUESTIONS_PER_VIDEO = 5


class Task(Struct, frozen=True):
    """One task.

    Attributes:
        name: Its name.
        documents: How many it has.
        metrics: Their names; each row scores them all.
        make: Makes a row: its fields and its scores.
        filters: Each gives every document a row.
        clustered: Whether five documents each share a video.
    """

    name: str
    documents: int
    metrics: tuple[str, ...]
    make: Callable[[Random, int, str], tuple[dict[str, Any], dict[str, float | list[float]]]]
    filters: tuple[str, ...] = ("none",)
    clustered: bool = False

    def sample(self, seed: int, filter_name: str, doc_id: int) -> Sample:
        """The row of a document under a filter, with its scores."""
        # Filters look at the same answer, so they start from the same numbers.
        random = Random(f"{seed}/{self.name}/{doc_id}")  # noqa: S311 - made-up answers, not secrets
        fields, scores = self.make(random, doc_id, filter_name)
        text = json.dumps(fields, ensure_ascii=False).replace(_HALF_EMOJI, r"\ud83d")
        cluster = f"video_{doc_id // QUESTIONS_PER_VIDEO:03}" if self.clustered else None
        return Sample(doc_id=doc_id, row=Raw(text.encode()), scores=scores, cluster=cluster)


_HALF_EMOJI = "\ud83d"  # cannot be UTF-8; as an escape it gets through every json.dumps

_Made = tuple[dict[str, Any], dict[str, float | list[float]]]


def _row(doc_id: int, target: str, answer: object, metrics: dict[str, Any], prompt: str) -> dict[str, Any]:
    return {
        "doc_id": doc_id,
        "target": target,
        "filtered_resps": answer,
        "token_counts": [{"output_tokens": 3 + len(str(answer)) // 3, "reasoning_tokens": None}],
        "doc_hash": DOC_HASH,
        **metrics,
        "input": prompt,
    }


def _colours(random: Random, doc_id: int, _: str) -> _Made:
    language = LANGUAGES[doc_id % len(LANGUAGES)]
    thing, colour = random.choice(language.things)
    correct = random.random() < 0.7  # noqa: PLR2004 - how good the made-up model is
    answer = colour if correct else random.choice([other for _, other in language.things if other != colour])
    prompt = f"{language.question.format(thing)}\nAnswer the question using a single word or phrase."
    return _row(doc_id, colour, answer, {"exact_match": float(correct)}, prompt), {
        "exact_match": float(correct)
    }


def _arithmetic(random: Random, doc_id: int, filter_name: str) -> _Made:
    left, right = random.randint(11, 99), random.randint(11, 99)
    said = left * right + (0 if random.random() < 0.75 else 10)  # noqa: PLR2004 - as above
    closed = random.random() < 0.8  # noqa: PLR2004 - as above
    response = f"{left} × {right} = {said}." + (f"\n#### {said}" if closed else " So that is it.")
    found = str(said) if closed or filter_name == "flexible-extract" else "[invalid]"
    score = float(found == str(left * right))
    prompt = f"Compute {left} × {right} step by step."
    row = _row(doc_id, str(left * right), found, {"exact_match": score}, prompt)
    return {"doc_id": doc_id, "target": row["target"], "resps": response} | row, {"exact_match": score}


def _sampling(random: Random, doc_id: int, _: str) -> _Made:
    language = LANGUAGES[doc_id % len(LANGUAGES)]
    thing, colour = random.choice(language.things)
    skill = random.random()
    answers = [
        colour if random.random() < skill else random.choice(language.things)[1] for _ in range(REPEATS)
    ]
    scores: list[float] = [float(answer == colour) for answer in answers]
    return _row(doc_id, colour, answers, {"acc": scores}, language.question.format(thing)), {"acc": scores}


def _video(random: Random, doc_id: int, _: str) -> _Made:
    video = doc_id // QUESTIONS_PER_VIDEO
    # Questions about one video succeed or fail together: that is what clustered errors are for.
    score = float(random.random() < (0.9 if video % 3 else 0.3))
    target = random.choice("ABCD")
    answer = target if score else random.choice([other for other in "ABCD" if other != target])
    metric = {"question_id": f"video_{video:03}_{doc_id % QUESTIONS_PER_VIDEO}", "score": score}
    event = random.choice(("goal", "rain", "song"))
    prompt = f"Video {video}: what happens after the {event}?\nA. …\nB. …\nC. …\nD. …"
    return _row(doc_id, target, answer, {"video_acc": metric}, prompt), {"video_acc": score}


def _signs(random: Random, doc_id: int, _: str) -> _Made:
    sign = random.choice(SIGNS)
    kept = len(sign) if random.random() < 0.5 else random.randint(1, len(sign))  # noqa: PLR2004 - as above
    answer = sign[:kept]
    if doc_id == HALF_EMOJI_DOC:
        answer += _HALF_EMOJI
    metrics: dict[str, Any] = {
        "overlap": kept / len(sign),
        "exact_match": kept == len(sign),
        "confidence": float("nan") if doc_id == NAN_DOC else round(random.random(), 4),
    }
    scores: dict[str, float | list[float]] = {
        "overlap": metrics["overlap"],
        "exact_match": float(metrics["exact_match"]),
    }
    return _row(doc_id, sign, answer, metrics, "Read the sign aloud.\u2028It may be in any script."), scores


TASKS = (
    Task("demo_arithmetic", 250, ("exact_match",), _arithmetic, filters=("strict-match", "flexible-extract")),
    Task("demo_colours", 400, ("exact_match",), _colours),
    Task("demo_sampling", 200, ("acc",), _sampling),
    Task("demo_signs", 400, ("overlap", "exact_match"), _signs),
    Task("demo_video", 300, ("video_acc",), _video, clustered=True),
)

REPAIRED = {"demo_signs": 2}
"""Task to its rows that have to be mended."""
