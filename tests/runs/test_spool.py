"""The spool: few open files, and bytes that reach their place whatever fails on the way."""

import errno
import os
import resource
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.runs.spool import Spool, read_record, run_folder_name, spool_files, task_files
from consumer.vocabulary import Record
from schemas.state import RunState, TaskState
from tests.runs.logs import homes


def opened(root, *names):
    """A run with a task for each name, its folder made."""
    spool = Spool(root, open_files_max=4)
    run = RunState("r", "r.0", tasks=[TaskState(name) for name in names])
    spool.create(0, run)
    return spool, run


def append(spool, run, number, *contents):
    files = spool.task_files(0, run, number)
    rows, entries, side = (*contents, b"", b"")[:3]
    task = run.tasks[number]
    spool.append_rows(
        files,
        task,
        rows=[rows],
        entries=[entries],
        sides=[side],
        ends=(task.rows + len(rows), task.index + len(entries), task.side + len(side)),
    )
    return files


def open_descriptors(root):
    return sum(root.resolve() in link.resolve().parents for link in Path("/proc/self/fd").iterdir())


@settings(deadline=None, max_examples=60)
@given(
    writes=st.lists(
        st.tuples(st.integers(0, 5), st.binary(max_size=9), st.binary(max_size=9), st.booleans()), max_size=40
    ),
    most=st.integers(1, 4),
)
def test_never_are_more_files_open_than_allowed_and_all_bytes_are_in_their_files(writes, most):
    with homes() as home:
        root = home()
        spool = Spool(root, open_files_max=most)
        run = RunState("r", "r.0", tasks=[TaskState(f"t{number}") for number in range(6)])
        spool.create(0, run)
        contents: dict[object, bytes] = {}
        for number, rows, side, flushed in writes:
            files = append(spool, run, number, rows, b"entry", side)
            for path, content in zip(
                (files.rows, files.index, files.side), (rows, b"entry", side), strict=True
            ):
                contents[path] = contents.get(path, b"") + content
            if flushed:
                spool.flush()
                assert open_descriptors(root) <= most
        spool.flush()
        lengths = {path: length for path, length in spool_files(root / "runs" / "0" / "r.0", run) if length}
        assert lengths == {path: len(content) for path, content in contents.items() if content}
        assert contents == {path: path.read_bytes() if path.exists() else b"" for path in contents}
        spool.close()
        assert open_descriptors(root) == 0


def test_appending_writes_nothing_before_the_flush(tmp_path):
    spool, run = opened(tmp_path, "t")
    files = append(spool, run, 0, b"row\n", b"e", b"s")
    assert not files.rows.exists()
    assert (4, 1, 1) == (run.tasks[0].rows, run.tasks[0].index, run.tasks[0].side)
    spool.flush()
    assert b"row\n" == files.rows.read_bytes()
    spool.close()


@pytest.mark.parametrize("fault", ["fails at once", "writes a part and fails", "writes a byte at a time"])
@pytest.mark.parametrize("nth", range(6))
def test_a_write_that_fails_is_done_again_at_the_same_place(tmp_path, monkeypatch, fault, nth):
    spool, run = opened(tmp_path, "a", "b")
    for number in (0, 1):
        append(spool, run, number, b"first row\n", b"entry", b"side")
    spool.flush()
    files = [append(spool, run, number, b"second\n", b"ENTRY", b"SIDE") for number in (0, 1)]

    real, calls = os.pwrite, []

    def pwrite(descriptor, content, position):
        calls.append(position)
        if fault == "writes a byte at a time":
            return real(descriptor, content[:1], position)
        if len(calls) == nth + 1:
            if fault == "writes a part and fails":
                return real(descriptor, content[:2], position)
            raise OSError(errno.ENOSPC, "no space left on device")
        if len(calls) == nth + 2 and fault == "writes a part and fails":
            raise OSError(errno.ENOSPC, "no space left on device")
        return real(descriptor, content, position)

    monkeypatch.setattr(os, "pwrite", pwrite)
    if fault == "writes a byte at a time":
        spool.flush()
    else:
        with pytest.raises(OSError, match="no space"):
            spool.flush()
        # More comes in before the disk has room again.
        append(spool, run, 0, b"third\n", b"3", b"3")
        spool.flush()
    more = (b"third\n", b"3", b"3") if fault != "writes a byte at a time" else (b"", b"", b"")
    assert [
        (b"first row\nsecond\n" + more[0], b"entryENTRY" + more[1], b"sideSIDE" + more[2]),
        (b"first row\nsecond\n", b"entryENTRY", b"sideSIDE"),
    ] == [(one.rows.read_bytes(), one.index.read_bytes(), one.side.read_bytes()) for one in files]
    spool.close()


def test_a_flush_on_a_full_disk_raises_what_the_system_says(tmp_path):
    spool, run = opened(tmp_path, "t")
    files = append(spool, run, 0, b"x" * 5000 + b"\n")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(OSError, match="too large"):
            spool.flush()
        assert 4096 == files.rows.stat().st_size
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    spool.flush()
    assert b"x" * 5000 + b"\n" == files.rows.read_bytes()
    spool.close()


record = st.builds(
    Record,
    st.sampled_from(["s", "a"]),
    st.just(0),
    st.integers(0, 2**63 - 1),
    st.integers(-1, 2**63 - 1),
    st.none() | st.binary(max_size=20),
    st.none() | st.binary(max_size=20),
    st.lists(st.tuples(st.text(max_size=5), st.none() | st.binary(max_size=5)), max_size=3),
)


@settings(deadline=None, max_examples=60)
@given(records=st.lists(record, max_size=8))
def test_records_are_read_back_from_the_log_as_they_came(records):
    with homes() as home:
        spool, run = opened(home())
        spans = [spool.append_record(0, run, one) for one in records]
        again = [spool.read_record(0, run, span) for span in spans]
        spool.close()
        assert [one._replace(headers=list(one.headers)) for one in records] == [
            one._replace(headers=[tuple(header) for header in one.headers]) for one in again
        ]
        if records:
            assert again[0] == read_record(spool.log_path(0, run), spans[0])


def test_half_of_what_the_process_may_open_is_left_to_others(tmp_path, monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (8, 8))
    monkeypatch.setattr(resource, "setrlimit", lambda *_: pytest.fail("it is as high as it may be"))
    spool = Spool(tmp_path, open_files_max=4096)
    run = RunState("r", "r.0", tasks=[TaskState(f"t{number}") for number in range(6)])
    spool.create(0, run)
    for number in range(6):
        append(spool, run, number, b"row\n", b"e")
    spool.flush()
    assert 4 == open_descriptors(tmp_path)
    spool.close()


def test_a_dropped_run_leaves_no_open_file_and_nothing_to_write(tmp_path):
    spool, run = opened(tmp_path, "t")
    files = append(spool, run, 0, b"one\n", b"e")
    spool.flush()
    append(spool, run, 0, b"two\n", b"e")
    spool.drop(0, run)
    spool.flush()
    assert b"one\n" == files.rows.read_bytes()
    assert 0 == open_descriptors(tmp_path)


@given(st.text(min_size=1, max_size=40), st.text(min_size=1, max_size=40))
def test_run_ids_that_differ_have_folders_that_differ(one, other):
    assert (one == other) == (run_folder_name(one) == run_folder_name(other))


@pytest.mark.parametrize("name", ["../../etc/passwd", "a/b", ".", "..", "", "x" * 5000, "\0", "t\n"])
def test_whatever_a_task_is_called_its_files_lie_in_the_runs_folder(tmp_path, name):
    files = task_files(tmp_path, 3, name)
    for path in (files.rows, files.index, files.side):
        assert tmp_path == path.parent
        path.write_bytes(b"")
    assert 3 == len(list(tmp_path.iterdir()))
