"""`consumer.intake.topics` and ``evalsink topics``: what evalsink requires of its topics on a real Kafka."""

import json

import msgspec
import pytest
from click.testing import CliRunner

from consumer.assembly import check_topics
from consumer.cli import cli, main
from consumer.errors import UsageError
from consumer.intake.topic_rules import DEAD_LETTER_BYTES_MAX, INPUT_BYTES_MAX, PARTITIONS
from consumer.intake.topics import arrange
from consumer.kafka_client import admin, partition_counts
from consumer.settings import Settings, Topics

pytestmark = pytest.mark.kafka

DAY_MS = 86_400_000


@pytest.fixture
def names(real):
    """Names of topics that do not exist."""
    mark = real.name("")
    return Topics(f"samples{mark}", f"aggregates{mark}", f"receipts{mark}", f"dead-letters{mark}")


def everyone(names):
    return [*names.inputs, names.receipts, names.dead_letters]


def make(real, topic, partitions=1, **configs):
    wanted = {
        "num_partitions": partitions,
        "configs": {key.replace("_", "."): value for key, value in configs.items()},
    }
    with admin(real.connect()) as client:
        client.create_topics({topic: wanted}, wait_for_metadata=True)


def config_of(real, topic):
    from kafka.admin import ConfigResource

    with admin(real.connect()) as client:
        found = client.describe_configs([ConfigResource("topic", topic)], config_filter="all")
    return {key: config["value"] for key, config in found["topic"][topic].items()}


def problems(topics):
    return {topic.name: topic.problems for topic in topics if topic.problems}


def test_topics_are_made_once_and_found_fit_ever_after(real, names):
    first = arrange(real.connect(), names, partitions=3)
    again = arrange(real.connect(), names, partitions=3)
    assert [(topic.name, topic.partitions, topic.replication, topic.created) for topic in first] == [
        (name, 3, 1, True) for name in everyone(names)
    ]
    assert again == [msgspec.structs.replace(topic, created=False) for topic in first]
    assert problems(again) == {}


def test_only_checking_makes_nothing(real, names):
    found = arrange(real.connect(), names, create=False)
    assert [topic.partitions for topic in found] == [None] * 4
    assert set(partition_counts(real.connect(), everyone(names)).values()) == {None}


def test_each_topic_is_made_for_its_purpose(real, names):
    arrange(real.connect(), names, partitions=1)
    settings = [config_of(real, name) for name in everyone(names)]
    assert [config["cleanup.policy"] for config in settings] == ["delete", "delete", "compact", "compact"]
    assert [int(config["max.message.bytes"]) for config in settings] == [
        INPUT_BYTES_MAX,
        INPUT_BYTES_MAX,
        1024 * 1024 + 12,
        DEAD_LETTER_BYTES_MAX,
    ]


def test_samples_and_aggregates_may_share_a_topic(real, names):
    names = msgspec.structs.replace(names, aggregates=names.samples)
    assert [topic.name for topic in arrange(real.connect(), names, partitions=1)] == everyone(names)
    assert len(everyone(names)) == 3


@pytest.mark.parametrize(("one", "other"), [("receipts", "samples"), ("dead_letters", "receipts")])
def test_no_other_two_purposes_may_share_a_topic(real, names, one, other):
    with pytest.raises(UsageError, match="given twice"):
        arrange(real.connect(), msgspec.structs.replace(names, **{one: getattr(names, other)}))


def test_nothing_asked_new_topics_follow_those_that_exist(real, names):
    make(real, names.samples, partitions=5)
    assert [topic.partitions for topic in arrange(real.connect(), names)] == [5] * 4


def test_nothing_asked_and_nothing_there_gives_the_default(real, names):
    assert [topic.partitions for topic in arrange(real.connect(), names)] == [PARTITIONS] * 4


def test_another_partition_count_is_refused_and_nothing_is_made_beside_it(real, names):
    make(real, names.aggregates, partitions=2)
    found = arrange(real.connect(), names, partitions=3)
    assert list(problems(found)) == [names.aggregates]
    assert "2 partitions, not 3" in found[1].problems[0]
    assert partition_counts(real.connect(), everyone(names)) == {
        names.samples: None,
        names.aggregates: 2,
        names.receipts: None,
        names.dead_letters: None,
    }


def test_inputs_and_receipts_of_unequal_counts_are_refused_also_when_none_is_asked(real, names):
    make(real, names.samples, partitions=2)
    make(real, names.receipts, partitions=1, cleanup_policy="compact")
    assert list(problems(arrange(real.connect(), names))) == [names.receipts]


def test_dead_letters_may_have_a_count_of_their_own(real, names):
    make(real, names.dead_letters, cleanup_policy="compact", max_message_bytes=str(DEAD_LETTER_BYTES_MAX))
    found = arrange(real.connect(), names, partitions=2)
    assert (problems(found), [topic.partitions for topic in found]) == ({}, [2, 2, 2, 1])


@pytest.mark.parametrize("policy", ["compact", "compact,delete"])
def test_a_compacted_input_is_refused(real, names, policy):
    make(real, names.samples, cleanup_policy=policy)
    [problem] = problems(arrange(real.connect(), names))[names.samples]
    assert "cleanup.policy=delete" in problem


@pytest.mark.parametrize("policy", ["delete", "compact,delete"])
def test_receipts_that_time_deletes_are_refused(real, names, policy):
    make(real, names.receipts, cleanup_policy=policy)
    [problem] = problems(arrange(real.connect(), names))[names.receipts]
    assert "cleanup.policy=compact" in problem


def test_dead_letters_that_could_not_hold_the_largest_record_are_refused(real, names):
    make(real, names.samples, max_message_bytes="2000000")
    make(real, names.dead_letters, cleanup_policy="compact", max_message_bytes="2000000")
    [problem] = problems(arrange(real.connect(), names))[names.dead_letters]
    assert f"max.message.bytes={DEAD_LETTER_BYTES_MAX}" in problem


def test_new_topics_get_the_retention_and_replicas_that_were_asked_for_and_old_ones_keep_theirs(real, names):
    make(real, names.samples, partitions=2, retention_ms="1000")
    found = arrange(real.connect(), names, min_insync_replicas=1, retention_ms=14 * DAY_MS, silence_ms=DAY_MS)
    assert problems(found) == {}
    said = {topic.name: topic.remarks for topic in found if topic.remarks}
    assert list(said) == [names.samples]
    [risk, difference] = said[names.samples]
    assert "abandon_after_s" in risk
    assert f"retention.ms=1000, not {14 * DAY_MS}" in difference
    configs = {name: config_of(real, name) for name in everyone(names)}
    assert [configs[name]["retention.ms"] for name in names.inputs] == ["1000", str(14 * DAY_MS)]
    # What is kept by key has no age to be deleted at: Kafka's default stands there and does nothing.
    assert configs[names.receipts]["retention.ms"] != str(14 * DAY_MS)
    assert {configs[name]["min.insync.replicas"] for name in everyone(names)} == {"1"}


@pytest.fixture
def settings_file(tmp_path, names):
    def write(bootstrap):
        topics = "".join(f'{field} = "{getattr(names, field)}"\n' for field in Topics.__struct_fields__)
        (tmp_path / "evalsink.toml").write_text(f'brokers = "{bootstrap}"\n[topics]\n{topics}', "utf-8")
        return str(tmp_path / "evalsink.toml")

    return write


def test_the_command_prints_what_it_made_and_found(real, names, settings_file):
    arguments = ["topics", "--config", settings_file(real.bootstrap)]
    first = CliRunner().invoke(cli, [*arguments, "--partitions", "2"], catch_exceptions=False)
    again = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert (first.exit_code, again.exit_code) == (0, 0)
    assert [line.split()[0] for line in first.stdout.splitlines()[1:]] == everyone(names)
    assert {line.split()[-1] for line in first.stdout.splitlines()[1:]} == {"created"}
    assert {line.split()[-1] for line in again.stdout.splitlines()[1:]} == {"present"}


def test_the_command_says_as_json_what_it_says_as_table_and_remarks_leave_the_status_alone(
    real, names, settings_file
):
    arguments = ["topics", "--config", settings_file(real.bootstrap), "--json", "--retention-days"]
    first = CliRunner().invoke(cli, [*arguments, "0.5", "--partitions", "2"], catch_exceptions=False)
    again = CliRunner().invoke(cli, [*arguments, "14"], catch_exceptions=False)
    assert (first.exit_code, again.exit_code) == (0, 0)
    made, found = ([json.loads(line) for line in said.stdout.splitlines()] for said in (first, again))
    assert [(one["name"], one["state"], one["partitions"]) for one in made] == [
        (name, "created", 2) for name in everyone(names)
    ]
    assert {one["state"] for one in found} == {"present"}
    assert [one["retention_ms"] for one in found] == [DAY_MS // 2, DAY_MS // 2, None, None]
    assert [len(one["remarks"]) for one in found] == [2, 2, 0, 0]
    for one in found:
        for remark in one["remarks"]:
            assert f"note: {remark}" in again.stderr


def test_checking_makes_nothing_and_missing_topics_are_an_error_then(real, names, settings_file, capsys):
    arguments = ["topics", "--config", settings_file(real.bootstrap), "--check"]
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 3
    printed = capsys.readouterr()
    assert f"topics missing at {real.bootstrap}: {', '.join(everyone(names))}" in printed.err
    assert printed.out.count("missing") == 4
    assert set(partition_counts(real.connect(), everyone(names)).values()) == {None}
    arrange(real.connect(), names, partitions=1)
    assert CliRunner().invoke(cli, arguments, catch_exceptions=False).exit_code == 0


def test_a_worker_starts_on_topics_that_may_lose_something_and_warns(real, names, tmp_path, caplog):
    make(real, names.samples, partitions=1, retention_ms="60000")
    arrange(real.connect(), names)
    settings = Settings(brokers=real.bootstrap, topics=names, state=str(tmp_path), output=str(tmp_path))
    check_topics(real.connect(), settings)
    [line] = [record.fields for record in caplog.records if record.message == "topic_risky"]
    assert line["topic"] == names.samples
    assert "retention.ms=60000" in line["reason"]


def test_the_command_ends_with_the_problems_and_a_status(real, names, settings_file, capsys):
    make(real, names.samples, partitions=2)
    with pytest.raises(SystemExit) as ended:
        main(["topics", "--config", settings_file(real.bootstrap), "--partitions", "3"])
    assert ended.value.code == 3
    printed = capsys.readouterr()
    assert f"{names.samples} has 2 partitions, not 3" in printed.err
    assert "unfit" in printed.out
    assert "missing" in printed.out


def test_what_kafka_refuses_is_said_in_its_own_words(real, names, settings_file, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["topics", "--config", settings_file(real.bootstrap), "--replication", "3"])
    assert ended.value.code == 3
    assert "replication factor of 3" in capsys.readouterr().err
