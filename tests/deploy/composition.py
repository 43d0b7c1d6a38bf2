"""deploy/compose.yaml as a value, and what must hold of it beyond Compose's schema.

The schema takes any `x-` key, any variable, any command and any path: a typo in one of them starts containers that do not
what was meant. `RULES` says what the rest has to be. Each rule looks at one aspect and raises AssertionError; together they
leave no key out, which `test_no_typo_in_a_key_passes` tries for all of them.
"""

import copy
import json
import re
import tempfile
import tomllib
from pathlib import Path

import check_jsonschema
import click
import jsonschema
import yaml

from consumer.cli import cli
from consumer.settings import Settings, load
from tests.docs.pages import ROOT
from tests.kafka_harness.jars import version as kafka_version

DEPLOY = ROOT / "deploy"
FILE = DEPLOY / "compose.yaml"
_BUILTIN = Path(check_jsonschema.__file__).parent / "builtin_schemas" / "vendor"
_SCHEMA = json.loads((_BUILTIN / "compose-spec.json").read_text("utf-8"))
SCHEMA = jsonschema.validators.validator_for(_SCHEMA)(_SCHEMA)

FRAGMENTS = {"x-evalsink", "x-worker", "x-worker-environment"}
"""What is written once for several services."""

GRAFANA = {
    "GF_AUTH_ANONYMOUS_ENABLED": "true",
    "GF_AUTH_ANONYMOUS_ORG_ROLE": "Viewer",
    "GF_AUTH_BASIC_ENABLED": "false",
    "GF_AUTH_DISABLE_LOGIN_FORM": "true",
    "GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION": "true",
    "GF_ANALYTICS_REPORTING_ENABLED": "false",
    "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
    "GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH": "/etc/grafana/dashboards/evalsink-overview.json",
}
"""Grafana passes over what it does not know, and there is none to ask here: a second look, with conf/defaults.ini open."""

NOT_IN_A_FILE = {"hub.eval_results"}


def read():
    """The file, fragments merged and `${NAME:-default}` replaced by the default."""
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", FILE.read_text("utf-8"))
    assert "$" not in text
    return yaml.safe_load(text)


def services(composition):
    return composition["services"]


def ours(composition):
    """Services that run evalsink."""
    return {
        name: one
        for name, one in services(composition).items()
        if one["image"].partition(":")[0] == "evalsink"
    }


def workers(composition):
    return {name: one for name, one in ours(composition).items() if one["command"][0] == "worker"}


def mounts(service):
    """(source, target, options) of each."""
    for mount in service.get("volumes", []):
        source, target, *options = mount.split(":")
        yield source, target, options


def is_bound(source):
    return source.startswith(("/", "."))


def settings_of(service):
    """The settings in force in a service, from its variables alone."""
    return load(environ=service.get("environment", {}))


def seconds(duration):
    [(number, unit)] = re.findall(r"^(\d+)(s|m)$", duration)
    return int(number) * {"s": 1, "m": 60}[unit]


def prometheus_config():
    return yaml.safe_load((DEPLOY / "compose" / "prometheus.yml").read_text("utf-8"))


def variables():
    """Every variable that evalsink reads as a setting."""
    for field in Settings.__struct_fields__:
        parts = getattr(getattr(Settings(), field), "__struct_fields__", None)
        for name in [field] if parts is None else [f"{field}.{part}" for part in parts]:
            if name not in NOT_IN_A_FILE:
                yield f"EVALSINK_{name.replace('.', '_').upper()}"


# -- rules ------------------------------------------------------------------------------------------------------------


def fits_the_schema_of_compose(composition):
    SCHEMA.validate(composition)


def has_no_key_of_its_own_but_the_fragments(composition):
    assert {key for key in composition if key.startswith("x-")} == FRAGMENTS
    for key, value in walk(services(composition)):
        assert not str(key[-1]).startswith("x-"), (key, value)


def names_every_image_by_a_version(composition):
    for name, service in services(composition).items():
        assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+\.\d+", service["image"]), name
    own = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    assert {service["image"] for service in ours(composition).values()} == {f"evalsink:{own}"}
    # The one that the tests run against.
    assert services(composition)["kafka"]["image"] == f"apache/kafka:{kafka_version()}"


def has_the_services_it_is_for(composition):
    assert set(services(composition)) == {
        *("kafka", "topics", "worker-1", "worker-2", "prometheus", "grafana", "demo-run", "demo"),
    }
    assert set(workers(composition)) == {"worker-1", "worker-2"}
    for name, service in services(composition).items():
        assert service.get("profiles", []) == (["demo"] if name.startswith("demo") else [])


def opens_ports_on_loopback_only(composition):
    published = {
        name: service["ports"] for name, service in services(composition).items() if "ports" in service
    }
    assert published == {
        "kafka": ["127.0.0.1:9092:9092"],
        "prometheus": ["127.0.0.1:9090:9090"],
        "grafana": ["127.0.0.1:3000:3000"],
    }


def gives_no_container_more_than_it_needs(composition):
    for name, service in services(composition).items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["logging"] == {"driver": "local"}, name
        assert not service.keys() & {"privileged", "cap_add", "devices", "pid", "ipc", "userns_mode"}, name
        assert service.get("network_mode", "none") == "none", name
        assert all("docker.sock" not in source for source, _, _ in mounts(service)), name
    for name, service in ours(composition).items():
        assert (service["user"], service["read_only"]) == ("10001:10001", True), name
        assert service["ulimits"] == {"core": 0}, name
        assert service["tmpfs"] == ["/tmp"], name  # noqa: S108 - in a container
        assert service["build"] == {"context": "..", "dockerfile": "deploy/image/Dockerfile"}, name
    assert services(composition)["prometheus"]["read_only"] is True


def restarts_what_is_to_stay_and_nothing_else(composition):
    for name, service in services(composition).items():
        once = name in {"topics", "demo-run", "demo"}
        assert service["restart"] == ("no" if once else "unless-stopped"), name


def waits_for_what_it_needs(composition):
    waits = {
        name: service["depends_on"]
        for name, service in services(composition).items()
        if "depends_on" in service
    }
    done = {"condition": "service_completed_successfully"}
    assert waits == {
        "topics": {"kafka": {"condition": "service_healthy"}},
        "worker-1": {"topics": done},
        "worker-2": {"topics": done},
        "grafana": ["prometheus"],
        "demo": {"topics": done, "demo-run": done},
    }


def sets_only_variables_that_somebody_reads(composition):
    known = set(variables())
    for name, service in services(composition).items():
        given = service.get("environment", {})
        if name in ours(composition):
            assert set(given) <= known, name
            settings_of(service)
        elif name == "kafka":  # whether they are Kafka's, a broker is asked: test_outside_containers.py
            assert all(re.fullmatch(r"CLUSTER_ID|KAFKA(_[A-Z]+)+", one) for one in given)
        elif name == "grafana":
            assert given == GRAFANA
        else:
            assert not given, name
    assert set(composition["x-worker-environment"]) <= known


def calls_evalsink_as_it_can_be_called(composition):
    for service in ours(composition).values():
        parse(service["command"])


def parse(words):
    """Take a command line apart as the command would; what it names on the disk is there."""
    with tempfile.TemporaryDirectory() as folder:
        name, *words = [folder if word.startswith("/data") else word for word in words]
        command = cli.get_command(click.Context(cli), name)
        assert command is not None, name
        try:
            command.make_context(name, words)
        except click.UsageError as error:
            raise AssertionError(f"evalsink {name}: {error.format_message()}") from error


def gives_each_worker_a_name_and_state_of_its_own_and_all_one_output(composition):
    states = []
    for name, service in workers(composition).items():
        chosen = settings_of(service)
        assert chosen.group_instance_id == name
        by_target = {target: source for source, target, _ in mounts(service)}
        assert by_target == {chosen.state: by_target[chosen.state], chosen.output: "output"}
        states.append(by_target[chosen.state])
    assert sorted(states) == ["state-1", "state-2"]


def lets_a_worker_stop_in_order(composition):
    for name, service in workers(composition).items():
        assert seconds(service["stop_grace_period"]) > settings_of(service).drain_timeout_s, name
    assert seconds(services(composition)["kafka"]["stop_grace_period"]) >= 30


def looks_after_health(composition):
    checked = {
        name: one["healthcheck"] for name, one in services(composition).items() if "healthcheck" in one
    }
    assert set(checked) == {"kafka", *workers(composition)}
    for name, check in checked.items():
        assert set(check) == {"test", "interval", "timeout", "retries", "start_period"}, name
        assert check["test"][0] == "CMD", name
        assert seconds(check["timeout"]) <= seconds(check["interval"]), name
    for name in workers(composition):
        command, flag, script = checked[name]["test"][1:]
        assert (command, flag) == ("python", "-c")
        assert f"http://127.0.0.1:{port_of_pages(composition)}/healthz" in script
    assert checked["kafka"]["test"][1:3] == [
        "/opt/kafka/bin/kafka-broker-api-versions.sh",
        "--bootstrap-server",
    ]


def port_of_pages(composition):
    """Where workers serve their pages, in their containers."""
    [port] = {settings_of(one).http.removeprefix("0.0.0.0:") for one in workers(composition).values()}
    return port


def has_kafka_where_its_clients_look(composition):
    given = services(composition)["kafka"]["environment"]
    advertised = dict(pair.split("://") for pair in given["KAFKA_ADVERTISED_LISTENERS"].split(","))
    assert advertised == {"INTERNAL": "kafka:19092", "HOST": "127.0.0.1:9092"}
    clients = {
        name: settings_of(one).brokers for name, one in ours(composition).items() if name != "demo-run"
    }
    assert set(clients.values()) == {advertised["INTERNAL"]}
    assert given["KAFKA_LOG_DIRS"] in [target for _, target, _ in mounts(services(composition)["kafka"])]


def mounts_what_is_there(composition):
    declared, named, bound = set(composition["volumes"]), set(), set()
    assert all(value is None for value in composition["volumes"].values())
    for name, service in services(composition).items():
        for source, target, options in mounts(service):
            assert target.startswith("/"), (name, target)
            if is_bound(source):
                assert options == ["ro"], (name, source)
                assert (DEPLOY / source).exists(), (name, source)
                bound.add((DEPLOY / source).resolve())
            else:
                assert options in ([], ["ro"]), (name, source)
                named.add(source)
    assert named == declared
    lost = {path for path in (DEPLOY / "compose").rglob("*") if path.is_file()} - bound
    assert not lost, "nobody mounts them"


def mounts_it_where_it_is_looked_for(composition):
    at = {
        name: {
            target: (DEPLOY / source).resolve() for source, target, _ in mounts(service) if is_bound(source)
        }
        for name, service in services(composition).items()
    }
    config = next(word for word in services(composition)["prometheus"]["command"] if "config.file" in word)
    assert at.pop("prometheus") == {
        config.partition("=")[2]: DEPLOY / "compose" / "prometheus.yml",
        **dict.fromkeys(prometheus_config()["rule_files"], DEPLOY / "prometheus" / "evalsink.rules.yml"),
    }
    provisioned = yaml.safe_load((DEPLOY / "compose" / "grafana" / "dashboards.yaml").read_text("utf-8"))
    [boards] = [provider["options"]["path"] for provider in provisioned["providers"]]
    assert at.pop("grafana") == {
        "/etc/grafana/provisioning/datasources/evalsink.yaml": DEPLOY
        / "compose"
        / "grafana"
        / "datasources.yaml",
        "/etc/grafana/provisioning/dashboards/evalsink.yaml": DEPLOY
        / "compose"
        / "grafana"
        / "dashboards.yaml",
        boards: DEPLOY / "grafana",
    }
    home = Path(GRAFANA["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert str(home.parent) == boards
    assert (DEPLOY / "grafana" / home.name).is_file()
    assert not any(at.values())


def keeps_what_must_outlive_a_container(composition):
    volumes = {
        name: {target: source for source, target, _ in mounts(service) if not is_bound(source)}
        for name, service in services(composition).items()
    }
    data = next(word for word in services(composition)["prometheus"]["command"] if "tsdb.path" in word)
    assert volumes["prometheus"] == {data.partition("=")[2]: "prometheus"}
    assert volumes["grafana"] == {"/var/lib/grafana": "grafana"}
    assert list(volumes["kafka"].values()) == ["kafka"]
    assert volumes["demo-run"] == volumes["demo"] == {"/data": "demo"}
    shown = services(composition)["demo-run"]["command"][-1]
    assert services(composition)["demo"]["command"][1] == shown
    assert shown.startswith("/data/")


RULES = [
    fits_the_schema_of_compose,
    has_no_key_of_its_own_but_the_fragments,
    names_every_image_by_a_version,
    has_the_services_it_is_for,
    opens_ports_on_loopback_only,
    gives_no_container_more_than_it_needs,
    restarts_what_is_to_stay_and_nothing_else,
    waits_for_what_it_needs,
    sets_only_variables_that_somebody_reads,
    calls_evalsink_as_it_can_be_called,
    gives_each_worker_a_name_and_state_of_its_own_and_all_one_output,
    lets_a_worker_stop_in_order,
    looks_after_health,
    has_kafka_where_its_clients_look,
    mounts_what_is_there,
    mounts_it_where_it_is_looked_for,
    keeps_what_must_outlive_a_container,
]


# -- typos ------------------------------------------------------------------------------------------------------------


def walk(value, path=()):
    """(path, value) of everything below a key, by the way that leads there."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in pairs:
        yield (*path, key), below
        yield from walk(below, (*path, key))


def with_typo(composition, path):
    """The same with one key misspelt."""
    mutant = copy.deepcopy(composition)
    where = mutant
    for key in path[:-1]:
        where = where[key]
    renamed = {(f"{key}x" if key == path[-1] else key): value for key, value in where.items()}
    where.clear()
    where.update(renamed)
    return mutant


def breaks_a_rule(composition):
    for rule in RULES:
        try:
            rule(composition)
        except (AssertionError, jsonschema.ValidationError, KeyError):
            return True
    return False
