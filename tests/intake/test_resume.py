"""Where a partition resumes: every case by hand, and what holds in all of them."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.intake.resume import Committed, Resume, TopicEnds, decide, parse_metadata
from schemas.state import CommitMetadata

IDS = {"s": "uuid-s", "a": "uuid-a"}


def ours(offset, watermark, topic_id, version=1):
    return Committed(
        offset, msgspec.json.encode(CommitMetadata(topic_id, watermark, format=version)).decode()
    )


def commits(s=(10, 4), a=(6, 6)):
    return {"s": ours(*s, "uuid-s"), "a": ours(*a, "uuid-a")}


NONE = {"s": None, "a": None}
ENDS = {"s": TopicEnds(0, 20), "a": TopicEnds(0, 10)}


@pytest.mark.parametrize(
    ("expected", "committed", "local", "ends"),
    [
        pytest.param(
            Resume(False, {"s": 0, "a": 0}, {}, {}), NONE, None, ENDS, id="first start: the beginning"
        ),
        pytest.param(
            Resume(False, {"s": 0, "a": 0}, {}, {}),
            NONE,
            None,
            {"s": TopicEnds(0, 0), "a": TopicEnds(0, 0)},
            id="first start on empty topics",
        ),
        pytest.param(
            Resume(False, {"s": 3, "a": 0}, {}, {"s": 20}),
            NONE,
            None,
            {"s": TopicEnds(3, 20), "a": TopicEnds(0, 10)},
            id="first start above offset 0: what was below is gone",
        ),
        pytest.param(
            Resume(False, {"s": 4, "a": 6}, {"s": 10, "a": 6}, {}),
            commits(),
            None,
            ENDS,
            id="no local state: the watermarks",
        ),
        pytest.param(
            Resume(True, {"s": 10, "a": 6}, {"s": 10, "a": 6}, {}),
            commits(),
            {"s": 10, "a": 6},
            ENDS,
            id="local state that reaches the watermarks: its own positions",
        ),
        pytest.param(
            Resume(True, {"s": 4, "a": 6}, {"s": 10, "a": 6}, {}),
            commits(),
            {"s": 4, "a": 6},
            ENDS,
            id="local state just at the watermarks, behind the committed offset",
        ),
        pytest.param(
            Resume(True, {"s": 20, "a": 10}, {"s": 10, "a": 6}, {}),
            commits(),
            {"s": 20, "a": 10},
            ENDS,
            id="local state ahead of the commit, up to the end",
        ),
        pytest.param(
            Resume(False, {"s": 4, "a": 6}, {"s": 10, "a": 6}, {}),
            commits(),
            {"s": 10, "a": 5},
            ENDS,
            id="local state short of one watermark: dropped in every topic",
        ),
        pytest.param(
            Resume(False, {"s": 4, "a": 6}, {"s": 10, "a": 6}, {}),
            commits(),
            {"s": 21, "a": 6},
            ENDS,
            id="local state beyond an end: dropped",
        ),
        pytest.param(
            Resume(False, {"s": 4, "a": 6}, {"s": 10, "a": 6}, {}),
            commits(),
            {"s": 10},
            ENDS,
            id="local state that lacks a topic: dropped",
        ),
        pytest.param(
            Resume(False, {"s": 4, "a": 6}, {"s": 10, "a": 6}, {}),
            commits(),
            {},
            ENDS,
            id="local state that knows no position: dropped",
        ),
        pytest.param(
            Resume(True, {"s": 12, "a": 7}, {}, {}),
            NONE,
            {"s": 12, "a": 7},
            ENDS,
            id="commits expired: local state decides",
        ),
        pytest.param(
            Resume(True, {"s": 12, "a": 7}, {}, {}),
            commits() | {"a": Committed(2, "")},
            {"s": 12, "a": 7},
            ENDS,
            id="an operator's reset of one topic counts as none for all, and binds nobody",
        ),
        pytest.param(
            Resume(False, {"s": 0, "a": 0}, {}, {}),
            commits() | {"a": Committed(2, "")},
            None,
            ENDS,
            id="the same without local state: the beginning of both",
        ),
        pytest.param(
            Resume(False, {"s": 0, "a": 0}, {}, {}),
            commits() | {"s": ours(10, 4, "uuid-of-another")},
            None,
            ENDS,
            id="a topic made anew",
        ),
        pytest.param(
            Resume(False, {"s": 0, "a": 0}, {}, {}),
            commits() | {"s": ours(10, 4, "uuid-s", version=2)},
            None,
            ENDS,
            id="a commit of another version",
        ),
        pytest.param(
            Resume(False, {"s": 0, "a": 0}, {}, {}),
            commits() | {"s": ours(10, -1, "uuid-s")},
            None,
            ENDS,
            id="a watermark that cannot be",
        ),
        pytest.param(
            Resume(False, {"s": 0, "a": 0}, {}, {}),
            commits() | {"s": Committed(10, "checkpoint of some other tool")},
            None,
            ENDS,
            id="foreign metadata",
        ),
        pytest.param(
            Resume(False, {"s": 7, "a": 6}, {"s": 10, "a": 6}, {"s": 20}),
            commits(),
            None,
            {"s": TopicEnds(7, 20), "a": TopicEnds(0, 10)},
            id="retention passed a watermark: what is first seen below today's end is tainted",
        ),
        pytest.param(
            Resume(True, {"s": 12, "a": 7}, {"s": 10, "a": 6}, {"s": 20}),
            commits(),
            {"s": 10, "a": 7},
            {"s": TopicEnds(12, 20), "a": TopicEnds(0, 10)},
            id="retention passed a local position",
        ),
        pytest.param(
            Resume(True, {"s": 12, "a": 7}, {"s": 10, "a": 6}, {}),
            commits(),
            {"s": 12, "a": 7},
            {"s": TopicEnds(12, 20), "a": TopicEnds(7, 10)},
            id="retention up to a local position: nothing is missing",
        ),
        pytest.param(
            Resume(False, {"s": 0, "a": 6}, {"a": 6}, {}),
            commits(),
            None,
            {"s": TopicEnds(0, 3), "a": TopicEnds(0, 10)},
            id="the log was cut back below its watermark: its beginning, and no floor for commits",
        ),
        pytest.param(
            Resume(False, {"s": 4, "a": 6}, {"a": 6}, {}),
            commits(),
            None,
            {"s": TopicEnds(0, 9), "a": TopicEnds(0, 10)},
            id="the log was cut back below the committed offset alone",
        ),
    ],
)
def test_where_a_partition_resumes(expected, committed, local, ends):
    assert expected == decide(topic_ids=IDS, committed=committed, local=local, ends=ends)


def test_without_topic_ids_metadata_of_a_broker_that_has_none_are_ours():
    committed = {"s": ours(10, 4, ""), "a": ours(6, 6, "")}
    assert Resume(False, {"s": 4, "a": 6}, {"s": 10, "a": 6}, {}) == decide(
        topic_ids={"s": "", "a": ""}, committed=committed, local=None, ends=ENDS
    )


@pytest.mark.parametrize(
    "metadata",
    ["", "{}", "null", "[]", '"t"', '{"t":"uuid-s","w":1.5,"v":1}', '{"t":"uuid-s","w":"1","v":1}', "{"],
)
def test_metadata_that_are_not_ours_are_none_and_no_error(metadata):
    assert parse_metadata(Committed(1, metadata), "uuid-s") is None
    assert parse_metadata(None, "uuid-s") is None


def test_metadata_of_a_later_version_of_ours_may_have_fields_we_do_not_know():
    assert CommitMetadata("uuid-s", 3) == parse_metadata(
        Committed(1, '{"t":"uuid-s","w":3,"v":1,"new":true}'), "uuid-s"
    )


offsets = st.integers(0, 12)


@st.composite
def topic_cases(draw):
    beginning = draw(offsets)
    kind = draw(st.sampled_from(["none", "foreign", "ours", "other topic"]))
    offset, watermark = draw(offsets), draw(offsets)
    commit = {
        "none": None,
        "foreign": Committed(offset, "x"),
        "ours": ours(offset, watermark, "id"),
        "other topic": ours(offset, watermark, "other"),
    }[kind]
    return commit, draw(offsets), TopicEnds(beginning, beginning + draw(offsets))


@given(cases=st.lists(topic_cases(), min_size=1, max_size=2), has_local=st.booleans())
def test_nothing_is_skipped_that_could_be_read_and_what_is_gone_is_said(cases, has_local):
    topics = ["s", "a"][: len(cases)]
    committed = dict(zip(topics, (case[0] for case in cases), strict=True))
    local = dict(zip(topics, (case[1] for case in cases), strict=True)) if has_local else None
    ends = dict(zip(topics, (case[2] for case in cases), strict=True))
    resume = decide(topic_ids=dict.fromkeys(topics, "id"), committed=committed, local=local, ends=ends)
    parsed = {topic: parse_metadata(committed[topic], "id") for topic in topics}
    trusted = all(parsed.values())
    assert set(topics) == set(resume.start)
    for topic in topics:
        beginning, end = ends[topic]
        start = resume.start[topic]
        assert beginning <= start <= end
        if resume.keep_local:
            assert local is not None
            assert start == max(local[topic], beginning)
            assert not trusted or parsed[topic].watermark <= local[topic]
            assert (topic in resume.tainted_below) == (local[topic] < beginning)
        elif trusted and parsed[topic].watermark <= end:
            assert start == max(parsed[topic].watermark, beginning)
            assert (topic in resume.tainted_below) == (parsed[topic].watermark < beginning)
        else:
            # Nothing says what was done: everything there is, and receipts tell what of it is closed.
            assert start == beginning
            assert (topic in resume.tainted_below) == (beginning > 0)
        assert resume.tainted_below.get(topic, end) == end
        # A commit that is not ours never holds later commits up.
        assert topic not in resume.committed or (
            trusted and resume.committed[topic] == committed[topic].offset <= end
        )
