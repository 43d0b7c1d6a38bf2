"""``evalsink dead-letters`` on both brokers: what is listed and shown, and what becomes of redriven letters."""

import base64
import json
import os
import tracemalloc

import pytest
from click.testing import CliRunner

from consumer.cli import cli, main
from consumer.intake import deadletterbox
from consumer.intake.deadletterbox import DeadLetterBox
from consumer.intake.deadletters import DeadLetters
from consumer.intake.outbound import Outbound
from consumer.intake.topic_rules import INPUT_BYTES_MAX
from consumer.kafka_client import topic_ids
from consumer.vocabulary import Record, RejectedRow
from tests.observing import read_all

SHIFT_JIS = "評価".encode("shift_jis")


class Sink:
    """A broker with topics of its own, dead letters written as the worker writes them, and the command line on it."""

    def __init__(self, broker):
        self.broker = broker
        self.topics = broker.topics()
        self.ids = topic_ids(broker.connect(), self.topics.inputs)

    def bury(self, *letters):
        """Write dead letters: (record, reason) or (record, reason, detail, rows). Returns their ids."""
        outbound = Outbound(self.broker.connect())
        writer = DeadLetters(outbound, topic=self.topics.dead_letters, topic_ids=self.ids)
        for letter in letters:
            writer.send(*letter)
        outbound.flush(30)
        outbound.close()
        return [self.id(letter[0].partition, letter[0].offset, letter[0].topic) for letter in letters]

    def record(self, offset, value=b"garbage", key=b"run-1", topic=None, partition=0):
        return Record(topic or self.topics.samples, partition, offset, 1767225600000, key, value)

    def id(self, partition, offset, topic=None):
        topic = topic or self.topics.samples
        return f"{self.ids.get(topic) or topic}/{partition}/{offset}"

    def run(self, *arguments):
        return CliRunner().invoke(cli, ["dead-letters", *arguments], catch_exceptions=False)

    def listed(self, *arguments):
        result = self.run("list", "--json", *arguments)
        assert result.exit_code == 0, result.output
        return [json.loads(line) for line in result.stdout.splitlines()]

    def sent_back(self):
        """What lies in the input topics: topic, key, value."""
        return [
            (record.topic, record.key, record.value) for record in read_all(self.broker, *self.topics.inputs)
        ]

    def in_force(self, monkeypatch):
        """Make the command line use this broker and these topics."""
        monkeypatch.setenv("EVALSINK_BROKERS", self.broker.bootstrap)
        for name in ("samples", "aggregates", "receipts", "dead_letters"):
            monkeypatch.setenv(f"EVALSINK_TOPICS_{name.upper()}", getattr(self.topics, name))
        return self


@pytest.fixture
def sink(broker, monkeypatch):
    return Sink(broker).in_force(monkeypatch)


@pytest.fixture
def real_sink(real, monkeypatch):
    return Sink(real).in_force(monkeypatch)


def exit_code(capsys, *arguments):
    with pytest.raises(SystemExit) as exited:
        main(["dead-letters", *arguments])
    return exited.value.code, capsys.readouterr().err


class TestList:
    def test_json_is_one_object_a_line_with_the_place_the_record_came_from(self, sink):
        sink.bury(
            (sink.record(7, b"{", b"run-1", partition=3), "not-json"),
            (sink.record(8, b"12345", b"run-2", sink.topics.aggregates), "late"),
        )
        assert sorted(sink.listed(), key=lambda letter: letter["offset"]) == [
            {
                "id": sink.id(3, 7),
                "topic": sink.topics.samples,
                "partition": 3,
                "offset": 7,
                "reason": "not-json",
                "run_id": "run-1",
                "bytes": 1,
            },
            {
                "id": sink.id(0, 8, sink.topics.aggregates),
                "topic": sink.topics.aggregates,
                "partition": 0,
                "offset": 8,
                "reason": "late",
                "run_id": "run-2",
                "bytes": 5,
            },
        ]

    def test_a_key_that_is_absent_or_no_text_is_no_run_id_and_a_null_value_has_no_bytes(self, sink):
        sink.bury(
            (sink.record(0, None), "empty"),
            (sink.record(1, key=None), "wrong-key"),
            (sink.record(2, key=SHIFT_JIS), "wrong-key"),
        )
        found = {letter["offset"]: (letter["run_id"], letter["bytes"]) for letter in sink.listed()}
        assert found == {0: ("run-1", 0), 1: (None, 7), 2: (None, 7)}

    def test_a_letter_written_again_after_a_redelivery_is_listed_once(self, sink):
        [first] = sink.bury((sink.record(0), "not-json"))
        sink.bury((sink.record(1), "not-json"), (sink.record(0), "not-json"))
        assert sorted(letter["id"] for letter in sink.listed()) == sorted([first, sink.id(0, 1)])

    def test_reason_and_run_choose(self, sink):
        sink.bury(
            (sink.record(0, key=b"run-1"), "late"),
            (sink.record(1, key=b"run-2"), "late"),
            (sink.record(2, key=b"run-2"), "not-json"),
        )

        def offsets(*arguments):
            return sorted(letter["offset"] for letter in sink.listed(*arguments))

        assert offsets("--reason", "late") == [0, 1]
        assert offsets("--run-id", "run-2") == [1, 2]
        assert offsets("--reason", "late", "--run-id", "run-2") == [1]
        assert offsets("--reason", "unheard-of") == []

    def test_people_get_a_table_and_a_total_for_each_reason(self, sink):
        sink.bury(*((sink.record(offset), "late") for offset in range(3)), (sink.record(3), "not-json"))
        result = sink.run("list")
        lines = result.stdout.splitlines()
        assert result.exit_code == 0
        assert lines[0].split() == ["ID", "REASON", "TOPIC", "RUN", "BYTES"]
        assert sorted(line.split() for line in lines[1:5]) == sorted(
            [sink.id(0, offset), reason, sink.topics.samples, "run-1", "7"]
            for offset, reason in enumerate(["late", "late", "late", "not-json"])
        )
        assert [line.split() for line in lines[5:]] == [
            ["3", "late"],
            ["1", "not-json"],
            ["4", "in", "all,", "in", sink.topics.dead_letters],
        ]

    def test_a_run_id_moves_no_terminal_and_is_no_markup(self, sink):
        sink.bury(
            (sink.record(0, key="\x1b[2J[red]\u202e".encode()), "late"),
            (sink.record(1, key=b"[red]x"), "late"),
        )
        shown = sink.run("list").stdout
        assert "\x1b" not in shown
        assert "\u202e" not in shown
        assert " [red]x " in shown

    def test_records_of_others_are_passed_over_and_counted(self, sink):
        outbound = Outbound(sink.broker.connect())
        outbound.send(sink.topics.dead_letters, key=b"theirs", value=b"x")
        outbound.send(sink.topics.dead_letters, key=b"\xff", value=b"x", headers=[("reason", b"y")])
        outbound.flush(30)
        outbound.close()
        [letter_id] = sink.bury((sink.record(0), "late"))
        result = sink.run("list", "--json")
        assert [json.loads(line)["id"] for line in result.stdout.splitlines()] == [letter_id]
        assert "passed over 2 records" in result.stderr

    def test_nothing_there_is_no_error(self, sink):
        assert sink.listed() == []
        assert sink.run("list").stdout.split()[:3] == ["0", "in", "all,"]

    def test_a_topic_that_is_not_there_is_exit_code_3_and_says_how_to_make_it(
        self, sink, monkeypatch, capsys
    ):
        monkeypatch.setenv("EVALSINK_TOPICS_DEAD_LETTERS", sink.broker.name())
        code, said = exit_code(capsys, "list")
        assert code == 3
        assert "evalsink topics" in said
        assert "topics.dead_letters" in said


class TestShow:
    def test_headers_then_the_value(self, sink):
        rows = [RejectedRow(4, 4, "bad-doc-id"), RejectedRow(9, 9, "bad-utf8")]
        [letter_id] = sink.bury((sink.record(5, b'{"a":\n"\xc3\xa9"}'), "rows", "2 of 10 rows", rows))
        result = sink.run("show", letter_id)
        assert result.exit_code == 0
        assert result.stdout == (
            f"reason: rows\ndetail: 2 of 10 rows\ntopic: {sink.topics.samples}\npartition: 0\noffset: 5\n"
            'timestamp: 1767225600000\nkey: run-1\nrows: 4,9\n\n{"a":\n"é"}\n'
        )

    @pytest.mark.parametrize("value", [b"\xff\xfe", b"\x1b[2J"])
    def test_what_is_no_text_or_would_steer_the_terminal_is_in_base64(self, sink, value):
        [letter_id] = sink.bury((sink.record(0, value), "not-json"))
        assert sink.run("show", letter_id).stdout.endswith(f"\n\nbase64:{base64.b64encode(value).decode()}\n")

    def test_raw_is_the_value_byte_for_byte_and_nothing_else(self, sink):
        value = bytes(range(256)) * 3
        [letter_id] = sink.bury((sink.record(0, value), "not-json"))
        assert sink.run("show", letter_id, "--raw").stdout_bytes == value

    def test_an_unknown_id_is_exit_code_1(self, sink, capsys):
        sink.bury((sink.record(0), "late"))
        code, said = exit_code(capsys, "show", sink.id(0, 1))
        assert code == 1
        assert sink.id(0, 1) in said


class TestRedrive:
    def test_bytes_and_key_go_back_and_the_letters_disappear(self, sink):
        ids = sink.bury(
            (sink.record(0, bytes(range(256)), SHIFT_JIS), "not-json"),
            (sink.record(1, b"aggregate", b"run-2", sink.topics.aggregates), "not-json"),
            (sink.record(2, b"stays"), "late"),
        )
        result = sink.run("redrive", *ids[:2])
        assert result.exit_code == 0
        assert sorted(result.stdout.split()) == sorted(ids[:2])
        assert "redriven: 2 dead letters" in result.stderr
        assert sorted(sink.sent_back()) == sorted(
            [
                (sink.topics.samples, SHIFT_JIS, bytes(range(256))),
                (sink.topics.aggregates, b"run-2", b"aggregate"),
            ]
        )
        assert [letter["id"] for letter in sink.listed()] == [ids[2]]

    def test_a_record_goes_where_its_key_goes(self, sink):
        outbound = Outbound(sink.broker.connect())
        outbound.send(sink.topics.samples, key=b"run-9", value=b"before")
        outbound.flush(30)
        outbound.close()
        sink.bury((sink.record(0, b"after", b"run-9", partition=3), "late"))
        sink.run("redrive", "--all")
        places = {record.partition for record in read_all(sink.broker, sink.topics.samples)}
        assert len(places) == 1

    def test_a_null_value_goes_back_as_null_and_an_empty_one_as_empty(self, sink):
        sink.bury((sink.record(0, None), "empty"), (sink.record(1, b""), "empty"))
        sink.run("redrive", "--all")
        assert sorted(sink.sent_back(), key=lambda sent: sent[2] is None) == [
            (sink.topics.samples, b"run-1", b""),
            (sink.topics.samples, b"run-1", None),
        ]

    def test_a_record_without_key_goes_back_without_key(self, sink):
        sink.bury((sink.record(0, key=None), "wrong-key"))
        sink.run("redrive", "--all")
        assert sink.sent_back() == [(sink.topics.samples, None, b"garbage")]

    def test_a_reason_chooses(self, sink):
        sink.bury(
            (sink.record(0, b"1"), "late"), (sink.record(1, b"2"), "not-json"), (sink.record(2, b"3"), "late")
        )
        sink.run("redrive", "--reason", "late")
        assert sorted(value for _, _, value in sink.sent_back()) == [b"1", b"3"]
        assert [letter["reason"] for letter in sink.listed()] == ["not-json"]

    def test_a_letter_that_was_redriven_can_come_again(self, sink):
        [letter_id] = sink.bury((sink.record(0), "late"))
        sink.run("redrive", letter_id)
        assert sink.listed() == []
        sink.bury((sink.record(0), "late"))
        assert [letter["id"] for letter in sink.listed()] == [letter_id]

    def test_many_go_in_windows_each_once(self, sink, monkeypatch):
        monkeypatch.setattr(deadletterbox, "_WINDOW_LETTERS", 7)
        values = [b"%04d" % number for number in range(100)]
        sink.bury(*((sink.record(number, value), "late") for number, value in enumerate(values)))
        result = sink.run("redrive", "--all")
        assert len(set(result.stdout.split())) == 100
        assert sorted(value for _, _, value in sink.sent_back()) == values
        assert sink.listed() == []

    def test_one_unknown_id_and_nothing_is_sent(self, sink, capsys):
        ids = sink.bury((sink.record(0), "late"))
        code, said = exit_code(capsys, "redrive", *ids, "no/such/0")
        assert code == 1
        assert "no/such/0" in said
        assert sink.sent_back() == []
        assert [letter["id"] for letter in sink.listed()] == ids

    def test_a_topic_that_is_gone_and_nothing_is_sent(self, sink, capsys):
        gone = sink.broker.name("gone")
        sink.bury((sink.record(0), "late"), (sink.record(1, topic=gone), "late"))
        code, said = exit_code(capsys, "redrive", "--all")
        assert code == 3
        assert gone in said
        assert sink.sent_back() == []

    def test_nothing_chosen_is_no_error(self, sink):
        result = sink.run("redrive", "--reason", "late")
        assert (result.exit_code, result.stdout) == (0, "")
        assert "nothing to do" in result.stderr

    @pytest.mark.parametrize("answer", ["n\n", "y\n"])
    def test_a_terminal_is_asked_and_may_say_no(self, sink, monkeypatch, answer):
        sink.bury((sink.record(0), "late"))
        monkeypatch.setattr("consumer.cli.dead_letters._somebody_there", lambda: True)
        result = CliRunner().invoke(cli, ["dead-letters", "redrive", "--all"], input=answer)
        assert result.exit_code == (0 if answer == "y\n" else 1)
        assert f"Send 1 dead letter to {sink.topics.samples}?" in result.stderr
        assert len(sink.sent_back()) == (answer == "y\n")

    def test_yes_is_not_asked(self, sink, monkeypatch):
        sink.bury((sink.record(0), "late"))
        monkeypatch.setattr("consumer.cli.dead_letters._somebody_there", lambda: True)
        assert sink.run("redrive", "--all", "--yes").exit_code == 0
        assert len(sink.sent_back()) == 1


@pytest.mark.parametrize("arguments", [(), ("--reason", "late", "--all"), ("an/id/0", "--all")])
def test_a_redrive_that_does_not_say_one_thing_is_a_wrong_call(capsys, arguments):
    code, said = exit_code(capsys, "redrive", *arguments)
    assert code == 2
    assert "--reason" in said


@pytest.mark.kafka
def test_a_record_that_the_broker_refuses_stays_a_dead_letter(real_sink, capsys):
    # Random, so that compression does not save it.
    ids = real_sink.bury((real_sink.record(0, os.urandom(INPUT_BYTES_MAX)), "late"))
    code, said = exit_code(capsys, "redrive", "--all")
    assert code == 3
    assert real_sink.topics.samples in said
    assert [letter["id"] for letter in real_sink.listed()] == ids


@pytest.mark.kafka
def test_a_letter_under_another_partitioner_is_taken_away_where_it_lies(real, real_sink):
    sink = real_sink
    outbound = Outbound(real.connect())
    headers = [
        ("reason", b"late"),
        ("topic", sink.topics.samples.encode()),
        ("partition", b"0"),
        ("offset", b"1"),
    ]
    for partition in range(4):
        outbound.send(
            sink.topics.dead_letters,
            key=b"x/0/%d" % partition,
            value=b"v",
            headers=headers,
            partition=partition,
        )
    outbound.flush(30)
    outbound.close()
    sink.run("redrive", "--all")
    assert sink.listed() == []
    assert len(sink.sent_back()) == 4


@pytest.mark.kafka
def test_listing_holds_few_values_at_a_time(real, real_sink):
    # They pack into next to nothing, so one fetch brings them all.
    count, size = 200, 1 << 20
    real_sink.bury(*((real_sink.record(offset, bytes(size)), "late") for offset in range(count)))
    tracemalloc.start()
    try:
        with DeadLetterBox(real.connect(), real_sink.topics.dead_letters) as box:
            assert len(box.letters()) == count
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < count * size / 2
