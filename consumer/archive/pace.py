"""How often a repository may be committed to. Pure."""

from collections.abc import Sequence

BURST_COMMITS = 5
"""Commits that may follow each other at once before they have to go evenly."""

_HOUR_S = 3600.0


def next_commit_at(asked: Sequence[float], per_hour: int) -> float:
    """When the next commit keeps within the budget: a few at once, then evenly, never more in any hour.

    By the generic cell rate algorithm (ITU-T I.371), and a sliding window over it.

    Args:
        asked: When the last ones were asked for, ascending, those of the last hour at least; seconds.
        per_hour: The budget.
    """
    if not asked:
        return 0.0
    gap_s = _HOUR_S / per_hour
    paid_until = 0.0
    for at in asked:
        paid_until = max(paid_until, at) + gap_s
    evenly = paid_until - (min(BURST_COMMITS, per_hour) - 1) * gap_s
    return max(evenly, asked[-per_hour] + _HOUR_S) if len(asked) >= per_hour else evenly
