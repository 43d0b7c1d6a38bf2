"""The Helm chart: what it renders fits evalsink and itself, and nonsense is refused by name. Needs Helm: `make helm`."""

import json
import re
import shutil
import textwrap
import tomllib

import jsonschema
import pytest
import yaml
from msgspec.structs import asdict, replace

from consumer.cli import cli
from consumer.intake.topic_rules import PARTITIONS
from consumer.monitoring import Monitor, parse_address
from consumer.settings import EvalResult, Hub, Security, Settings, Topics, load
from tests.deploy.helm import CHART, EVERYTHING, KUBERNETES, RefusedError
from tests.docs.pages import ROOT, read
from tests.monitoring.asking import promtool

pytestmark = pytest.mark.system

SASL = "settings.security.protocol=SASL_PLAINTEXT,settings.security.username=u,secrets.kafkaPassword.name=p"
SECRETS = "/run/secrets/evalsink"
HUB = ("--set", "settings.durable=hub,settings.hub.repo=my-org/evaluations,secrets.hubToken.name=hub")


@pytest.fixture(scope="module")
def plain(helm):
    return helm.objects()


@pytest.fixture(scope="module")
def everything(helm):
    return helm.objects("--values", EVERYTHING)


@pytest.fixture(scope="module")
def hub(helm):
    return helm.objects(*HUB)


@pytest.fixture(params=["plain", "everything", "hub"])
def rendered(request):
    """Three ways to install it."""
    return request.getfixturevalue(request.param)


def pods(objects):
    """(labels, spec) of all pods that the objects lead to."""
    templates = [one["spec"]["template"] for one in objects.values() if one["kind"] in {"StatefulSet", "Job"}]
    return [(one["metadata"]["labels"], one["spec"]) for one in templates]


def copied(folder):
    """A copy of the chart, to change."""
    return shutil.copytree(CHART, folder / "evalsink")


def worker(objects):
    return objects["StatefulSet", "evalsink"]["spec"]["template"]["spec"]


def settings_of(objects, folder, name="evalsink-settings"):
    """What evalsink makes of the file and the worker's variables."""
    file = folder / f"{name}.toml"
    file.write_text(objects["ConfigMap", name]["data"]["settings.toml"], "utf-8")
    return load(config=file, environ=environment(objects))


def environment(objects):
    """The worker's variables as the first pod has them."""
    container = worker(objects)["containers"][0]
    fields = {"metadata.name": "evalsink-0"}
    return {
        one["name"]: one["value"] if "value" in one else fields[one["valueFrom"]["fieldRef"]["fieldPath"]]
        for one in container["env"]
    }


# -- it is a chart ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("values", [(), ("--values", EVERYTHING), HUB], ids=["plain", "everything", "hub"])
def test_helm_has_nothing_to_say_about_the_chart(helm, values):
    helm("lint", "--strict", CHART, "--kube-version", KUBERNETES[-1], *values)


def test_by_itself_it_asks_for_nothing_that_a_cluster_may_not_have(plain):
    assert {
        "ConfigMap",
        "NetworkPolicy",
        "PersistentVolumeClaim",
        "PodDisruptionBudget",
        "Service",
        "ServiceAccount",
        "StatefulSet",
    } == {kind for kind, _ in plain}


def test_with_everything_on_everything_is_there(everything):
    kinds = {kind for kind, _ in everything}
    assert {"Job", "PodMonitor", "PrometheusRule", "ScaledObject", "TriggerAuthentication"} <= kinds
    assert ("ConfigMap", "evalsink-dashboards") in everything


@pytest.mark.parametrize("version", KUBERNETES)
def test_every_allowed_kubernetes_gets_the_same(helm, version):
    assert helm.template() == helm.template("--kube-version", version)


def test_an_older_kubernetes_is_refused(helm):
    with pytest.raises(RefusedError, match=r"1\.26\.9"):
        helm.template("--kube-version", "1.26.9")


def test_the_notes_say_where_runs_appear_and_who_makes_the_topics(helm, tmp_path):
    # Helm shows them only to whom has a cluster, so they are read as if they were an object.
    copy = copied(tmp_path)
    written = (copy / "templates" / "NOTES.txt").read_text("utf-8")
    head = "kind: Notes\nmetadata: {name: notes}\ntext: |\n  Notes: "
    (copy / "templates" / "notes.yaml").write_text(head + textwrap.indent(written, "  ").lstrip(), "utf-8")
    notes = {
        values: helm.objects(*values, chart=copy)["Notes", "notes"]["text"]
        for values in ((), HUB, ("--values", EVERYTHING))
    }
    assert "volume evalsink-output" in notes[()]
    assert "with 12 partitions, with topicsJob.enabled=true" in notes[()]
    assert "my-org/evaluations on the Hub" in notes[HUB]
    for text in notes.values():
        # What a template does not know it leaves empty.
        commands = [line.split() for line in text.splitlines() if line.startswith("  kubectl")]
        assert len(commands) == 4
        for words in commands:
            assert words[words.index("-n") + 1] == "evalsink"
            assert {"evalsink-0", "statefulset/evalsink"} & set(words)
    assert "topicsJob" not in notes["--values", EVERYTHING]
    assert "3 to 12 worker(s)" in notes["--values", EVERYTHING]


# -- what evalsink is told --------------------------------------------------------------------------------------------


def test_the_default_settings_are_evalsinks_own_but_for_where_they_must_differ(plain, tmp_path):
    expected = Settings(
        brokers="kafka:9092",
        output="/data",
        state="/var/lib/evalsink",
        http="0.0.0.0:9464",
        group_instance_id="evalsink-0",
        session_timeout_ms=120_000,
    )
    assert expected == settings_of(plain, tmp_path)


def test_settings_of_every_kind_arrive(everything, tmp_path):
    figure = EvalResult(
        task="mmlu_pro",
        metric="exact_match",
        dataset="TIGER-Lab/MMLU-Pro",
        task_id="mmlu_pro",
        models=("my-org/*",),
        filter="custom-extract",
        scale=100.0,
    )
    expected = Settings(
        brokers="kafka-0.kafka:9093,kafka-1.kafka:9093,kafka-2.kafka:9094",
        output="/data",
        state="/var/lib/evalsink",
        http="0.0.0.0:9464",
        group_instance_id="evalsink-0",
        session_timeout_ms=120_000,
        abandon_after_s=43_200.0,
        topics=Topics(
            "team.eval.samples", "team.eval.aggregates", "team.eval.receipts", "team.eval.dead-letters"
        ),
        security=Security(
            protocol="SASL_SSL",
            ca_file=f"{SECRETS}/kafka-ca.crt",
            certificate_file=f"{SECRETS}/kafka.crt",
            key_file=f"{SECRETS}/kafka.key",
            key_password_file=f"{SECRETS}/kafka-key-password",
            username="evalsink",
            password_file=f"{SECRETS}/kafka-password",
        ),
        hub=Hub(
            repo="my-org/evaluations",
            token_file=f"{SECRETS}/hub-token",
            runs="all",
            linger_s=30.5,
            commits_per_hour=10,
            eval_results=(figure,),
        ),
    )
    assert expected == settings_of(everything, tmp_path)


def test_any_setting_may_be_given_and_none_changes_on_its_way(helm, tmp_path):
    """All of deploy/settings.example.toml, but for what is the chart's to set."""
    given = tomllib.loads(read("deploy/settings.example.toml"))
    for name in ("state", "output", "http", "group_instance_id"):
        del given[name]
    for part in ("security", "hub"):
        given[part] = {name: value for name, value in given[part].items() if not name.endswith("_file")}
    given |= {"group": 'a "b" <\\ü>', "watchdog_s": 0.25, "dead_letters_in_a_row_max": 123_456_789_012}
    values = tmp_path / "values.yaml"
    values.write_text(yaml.safe_dump({"settings": given}), "utf-8")
    loaded = settings_of(helm.objects("--values", values), tmp_path)
    expected = replace(
        Settings(),
        **{name: given[name] for name in ("group", "watchdog_s", "dead_letters_in_a_row_max")},
        **{name: getattr(loaded, name) for name in ("state", "output", "http", "group_instance_id")},
    )
    assert expected == loaded


def test_with_the_hub_as_the_place_the_output_lies_beside_the_state_and_does_not_fill_it(helm, tmp_path):
    objects = helm.objects(*HUB)
    loaded = settings_of(objects, tmp_path)
    assert ("/var/lib/evalsink", "/var/lib/evalsink/output") == (loaded.state, loaded.output)
    assert not loaded.hub.keep_files
    assert not [kind for kind, _ in objects if kind == "PersistentVolumeClaim"]
    assert settings_of(helm.objects(*HUB, "--set", "settings.hub.keep_files=true"), tmp_path).hub.keep_files


@pytest.mark.parametrize(("workers", "commits"), [(1, 60), (2, 60), (3, 40), (12, 10), (200, 1)])
def test_workers_share_the_commits_that_the_hub_takes(helm, tmp_path, workers, commits):
    objects = helm.objects(*HUB, "--set", f"replicas={workers},partitions=200")
    assert commits == settings_of(objects, tmp_path).hub.commits_per_hour


def test_the_topics_job_is_told_what_the_workers_are_told(everything):
    assert (
        everything["ConfigMap", "evalsink-topics"]["data"]["settings.toml"]
        == everything["ConfigMap", "evalsink-settings"]["data"]["settings.toml"]
    )


def test_a_change_of_the_settings_restarts_the_workers_and_nothing_else_does(helm):
    def template(*options):
        return helm.objects(*options)["StatefulSet", "evalsink"]["spec"]["template"]

    assert template() == template("--set", "podDisruptionBudget.enabled=false,prometheusRule.enabled=true")
    assert template() != template("--set", "settings.grace_s=901")


def test_every_variable_of_ours_is_one_that_evalsink_knows(rendered):
    known = {f"EVALSINK_{name.upper()}" for name in Settings.__struct_fields__}
    for _, spec in pods(rendered):
        for variable in spec["containers"][0]["env"]:
            assert variable["name"] in known or not variable["name"].startswith("EVALSINK_")


def test_containers_call_commands_and_options_that_exist(everything, tmp_path):
    file = tmp_path / "settings.toml"
    file.touch()
    called = []
    for _, spec in pods(everything):
        name, *options = [
            str(file) if one.endswith(".toml") else one for one in spec["containers"][0]["args"]
        ]
        command = cli.get_command(None, name)
        command.make_context(name, options)
        called.append(name)
    assert ["topics", "worker"] == sorted(called)


def test_probes_ask_for_pages_that_the_worker_has_where_it_serves_them(rendered, tmp_path):
    container = worker(rendered)["containers"][0]
    ports = {one["name"]: one["containerPort"] for one in container["ports"]}
    pages = Monitor(settings_of(rendered, tmp_path)).routes
    asked = [container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")]
    assert ["/readyz", "/healthz", "/readyz"] == [one["path"] for one in asked]
    assert {one["path"] for one in asked} <= set(pages)
    assert {parse_address(environment(rendered)["EVALSINK_HTTP"])[1]} == {ports[one["port"]] for one in asked}
    if monitor := rendered.get(("PodMonitor", "evalsink")):
        assert [("http", "/metrics")] == [
            (one["port"], one["path"]) for one in monitor["spec"]["podMetricsEndpoints"]
        ]
    assert ["http"] == [one["targetPort"] for one in rendered["Service", "evalsink"]["spec"]["ports"]]


def test_partitions_are_as_evalsink_topics_makes_them():
    assert PARTITIONS == yaml.safe_load(read("deploy/chart/values.yaml"))["partitions"]


# -- it fits itself ---------------------------------------------------------------------------------------------------


def test_nothing_is_mounted_that_is_not_there_and_nothing_is_there_unused(rendered):
    claims = [
        one["metadata"]["name"] for one in rendered["StatefulSet", "evalsink"]["spec"]["volumeClaimTemplates"]
    ]
    for _, spec in pods(rendered):
        volumes = [one["name"] for one in spec["volumes"]] + (claims if spec is worker(rendered) else [])
        mounts = spec["containers"][0]["volumeMounts"]
        assert sorted(volumes) == sorted(one["name"] for one in mounts)
        assert len(mounts) == len({one["mountPath"] for one in mounts})
        for volume in spec["volumes"]:
            if "configMap" in volume:
                assert ("ConfigMap", volume["configMap"]["name"]) in rendered
            if "persistentVolumeClaim" in volume:
                assert ("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]) in rendered


def test_every_secret_that_the_settings_name_is_mounted_there(everything, tmp_path):
    loaded = settings_of(everything, tmp_path)
    named = {
        value
        for part in (loaded.security, loaded.hub)
        for name, value in asdict(part).items()
        if name.endswith("_file")
    }
    for _, spec in pods(everything):
        volume = next(one for one in spec["volumes"] if one["name"] == "secrets")["projected"]
        mount = next(one for one in spec["containers"][0]["volumeMounts"] if one["name"] == "secrets")[
            "mountPath"
        ]
        items = [item for source in volume["sources"] for item in source["secret"]["items"]]
        assert named == {f"{mount}/{item['path']}" for item in items}
        assert 0o440 == volume["defaultMode"]


def test_folders_that_are_written_to_are_volumes(rendered):
    mounts = {
        one["mountPath"]
        for one in worker(rendered)["containers"][0]["volumeMounts"]
        if not one.get("readOnly")
    }
    told = environment(rendered)
    for folder in (told["EVALSINK_STATE"], told["EVALSINK_OUTPUT"], told["HOME"]):
        assert any(f"{folder}/".startswith(f"{mount}/") for mount in mounts), folder


def test_what_is_selected_are_the_workers_and_only_they(rendered):
    (labels,) = [labels for labels, spec in pods(rendered) if spec is worker(rendered)]
    others = [labels for labels, spec in pods(rendered) if spec is not worker(rendered)]
    selectors = [
        rendered["StatefulSet", "evalsink"]["spec"]["selector"]["matchLabels"],
        rendered["Service", "evalsink"]["spec"]["selector"],
        rendered["PodDisruptionBudget", "evalsink"]["spec"]["selector"]["matchLabels"],
        *(one["labelSelector"]["matchLabels"] for one in worker(rendered)["topologySpreadConstraints"]),
    ]
    if monitor := rendered.get(("PodMonitor", "evalsink")):
        selectors.append(monitor["spec"]["selector"]["matchLabels"])
    for selector in selectors:
        assert selector.items() <= labels.items()
        assert not any(selector.items() <= other.items() for other in others)
    # The Job must reach Kafka too.
    guarded = rendered["NetworkPolicy", "evalsink"]["spec"]["podSelector"]["matchLabels"]
    assert all(guarded.items() <= other.items() for other in (labels, *others))


def test_nobody_gets_root_a_token_or_a_file_system_to_write_to(rendered):
    assert (
        rendered["ServiceAccount", worker(rendered)["serviceAccountName"]]["automountServiceAccountToken"]
        is False
    )
    for _, spec in pods(rendered):
        assert (False, False) == (spec["automountServiceAccountToken"], spec["enableServiceLinks"])
        assert (True, 10001, 10001, 10001, "OnRootMismatch", {"type": "RuntimeDefault"}) == tuple(
            spec["securityContext"][name]
            for name in (
                "runAsNonRoot",
                "runAsUser",
                "runAsGroup",
                "fsGroup",
                "fsGroupChangePolicy",
                "seccompProfile",
            )
        )
        assert {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        } == spec["containers"][0]["securityContext"]
        resources = spec["containers"][0]["resources"]
        assert ({"memory"}, {"cpu", "memory"}) == (set(resources["limits"]), set(resources["requests"]))


def test_where_the_platform_gives_ids_none_is_asked_for(helm):
    ids = ("runAsUser", "runAsGroup", "fsGroup")
    options = ",".join(f"podSecurityContext.{name}=null" for name in ids)
    context = worker(helm.objects("--set", options))["securityContext"]
    assert not set(ids) & set(context)
    assert context["runAsNonRoot"]


@pytest.mark.parametrize(("drain_s", "grace_s"), [(None, 45), (30.5, 46), (600, 615)])
def test_kubernetes_waits_longer_than_an_orderly_stop_takes(helm, drain_s, grace_s):
    options = () if drain_s is None else ("--set-json", f"settings.drain_timeout_s={drain_s}")
    assert grace_s == worker(helm.objects(*options))["terminationGracePeriodSeconds"]


def test_workers_keep_their_names_and_volumes(rendered):
    spec = rendered["StatefulSet", "evalsink"]["spec"]
    assert "Parallel" == spec["podManagementPolicy"]
    assert {"whenDeleted": "Retain", "whenScaled": "Retain"} == spec["persistentVolumeClaimRetentionPolicy"]
    assert [["ReadWriteOnce"]] == [claim["spec"]["accessModes"] for claim in spec["volumeClaimTemplates"]]
    assert spec["serviceName"] == rendered["Service", "evalsink"]["metadata"]["name"]
    assert "None" == rendered["Service", "evalsink"]["spec"]["clusterIP"]


def test_published_runs_outlive_the_release(plain):
    claim = plain["PersistentVolumeClaim", "evalsink-output"]
    assert "keep" == claim["metadata"]["annotations"]["helm.sh/resource-policy"]
    assert ["ReadWriteMany"] == claim["spec"]["accessModes"]


def test_an_upgrade_changes_nothing_that_kubernetes_does_not_let_change(helm, tmp_path):
    """Of a StatefulSet: selector, service and claims. Another version of chart and image must leave them alone."""
    newer = copied(tmp_path)
    text = (newer / "Chart.yaml").read_text("utf-8")
    (newer / "Chart.yaml").write_text(
        re.sub(r"(?m)^(version|appVersion): .*$", r'\1: "9.9.9"', text), "utf-8"
    )
    old, new = (helm.objects(chart=chart)["StatefulSet", "evalsink"]["spec"] for chart in (CHART, newer))
    assert "9.9.9" in new["template"]["spec"]["containers"][0]["image"]
    for name in ("selector", "serviceName", "podManagementPolicy", "volumeClaimTemplates"):
        assert old[name] == new[name]


def test_a_long_name_leaves_room_for_what_kubernetes_appends(helm):
    release = "r" * 53
    names = [
        name for kind, name in helm.objects("--values", EVERYTHING, release=release) if kind == "StatefulSet"
    ]
    assert [50] == [len(name) for name in names]


def test_names_and_texts_that_look_like_numbers_stay_texts(helm):
    objects = helm.objects(
        "--set-string",
        "secrets.kafkaPassword.name=123,secrets.kafkaPassword.key=1e3,settings.security.username=42,"
        "settings.security.protocol=SASL_SSL,state.storageClass=7,image.repository=1,image.tag=2,podLabels.a=true",
        release="77",
    )
    spec = objects["StatefulSet", "77-evalsink"]["spec"]["template"]["spec"]
    secret = next(one for one in spec["volumes"] if one["name"] == "secrets")["projected"]["sources"][0][
        "secret"
    ]
    assert ("123", "1e3") == (secret["name"], secret["items"][0]["key"])
    assert "1:2" == spec["containers"][0]["image"]
    assert '"42"' in objects["ConfigMap", "77-evalsink-settings"]["data"]["settings.toml"]


def test_a_label_of_ours_cannot_be_taken_away(helm):
    key = r"podLabels.app\.kubernetes\.io/component"
    labels = helm.objects("--set", f"{key}=other")["StatefulSet", "evalsink"]["spec"]["template"]["metadata"][
        "labels"
    ]
    assert "worker" == labels["app.kubernetes.io/component"]


def test_every_object_bears_the_labels_that_tools_look_for(everything):
    for (kind, name), one in everything.items():
        expected = {
            "app.kubernetes.io/name": "evalsink",
            "app.kubernetes.io/instance": "evalsink",
            "app.kubernetes.io/managed-by": "Helm",
            "app.kubernetes.io/version": yaml.safe_load(read("deploy/chart/Chart.yaml"))["appVersion"],
        }
        assert expected.items() <= one["metadata"]["labels"].items(), (kind, name)


# -- network ----------------------------------------------------------------------------------------------------------


def egress(objects):
    rules = objects["NetworkPolicy", "evalsink"]["spec"]["egress"]
    return [[(port["port"], port["protocol"]) for port in rule["ports"]] for rule in rules]


def test_only_the_monitoring_namespace_gets_in_and_only_dns_and_kafka_are_reached(plain):
    spec = plain["NetworkPolicy", "evalsink"]["spec"]
    assert ["Ingress", "Egress"] == spec["policyTypes"]
    (rule,) = spec["ingress"]
    (source,) = rule["from"]
    expected = {"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["monitoring"]}
    assert {"namespaceSelector": {"matchExpressions": [expected]}} == source
    assert [{"port": "http", "protocol": "TCP"}] == rule["ports"]
    assert [[(53, "UDP"), (53, "TCP")], [(9092, "TCP")]] == egress(plain)


def test_nobody_gets_in_where_nobody_monitors(helm):
    objects = helm.objects("--set-json", "networkPolicy.monitoringNamespaces=[]")
    assert [] == objects["NetworkPolicy", "evalsink"]["spec"]["ingress"]


def test_ports_of_the_brokers_are_those_that_the_settings_name(helm):
    brokers = r"a:9092\, b.c:9093\,[2001:db8::1]:19092\,d:9092"
    objects = helm.objects("--set", f"settings.brokers={brokers}")
    assert [(9092, "TCP"), (9093, "TCP"), (19092, "TCP")] == egress(objects)[1]


def test_the_hub_is_reached_only_where_there_is_one(helm, everything):
    assert [(443, "TCP")] in egress(helm.objects(*HUB))
    assert [[(9093, "TCP"), (9094, "TCP")], [(443, "TCP")], [(3128, "TCP")]] == egress(everything)[1:]


# -- monitoring and scaling -------------------------------------------------------------------------------------------


def test_the_rules_are_those_of_deploy_with_addresses_of_the_runbook(everything, tmp_path):
    spec = everything["PrometheusRule", "evalsink"]["spec"]
    text = read("deploy/prometheus/evalsink.rules.yml").replace(
        "docs/RUNBOOK.md#", "https://docs.example/evalsink/RUNBOOK.md#"
    )
    assert yaml.safe_load(text) == spec
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump(spec), "utf-8")
    code, said = promtool("check", "rules", file)
    assert 0 == code, said


def test_every_alert_leads_to_the_runbook_given(everything):
    rules = [
        rule
        for group in everything["PrometheusRule", "evalsink"]["spec"]["groups"]
        for rule in group["rules"]
    ]
    found = [rule["annotations"]["runbook_url"] for rule in rules if "alert" in rule]
    assert len(found) > 10
    assert all(url.startswith("https://docs.example/evalsink/RUNBOOK.md#evalsink") for url in found)


def test_the_dashboards_are_those_of_deploy(everything):
    found = everything["ConfigMap", "evalsink-dashboards"]
    assert "1" == found["metadata"]["labels"]["grafana_dashboard"]
    originals = {path.name: path.read_text("utf-8") for path in (ROOT / "deploy" / "grafana").glob("*.json")}
    assert {name: text.rstrip() for name, text in originals.items()} == {
        name: text.rstrip() for name, text in found["data"].items()
    }


def test_keda_scales_the_workers_by_the_lag_of_both_inputs(everything):
    spec = everything["ScaledObject", "evalsink"]["spec"]
    target = spec["scaleTargetRef"]
    assert (target["kind"], target["name"]) in everything
    assert "replicas" not in everything["StatefulSet", "evalsink"]["spec"]
    assert (3, 12) == (spec["minReplicaCount"], spec["maxReplicaCount"])
    asked = [one["metadata"] for one in spec["triggers"]]
    assert ["team.eval.samples", "team.eval.aggregates"] == [one["topic"] for one in asked]
    assert {("evalsink", "scram_sha512", "enable")} == {
        (one["consumerGroup"], one["sasl"], one["tls"]) for one in asked
    }
    behaviour = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    assert (
        behaviour["scaleDown"]["stabilizationWindowSeconds"]
        > behaviour["scaleUp"]["stabilizationWindowSeconds"]
    )


def test_keda_gets_in_as_the_workers_do(everything):
    spec = everything["TriggerAuthentication", "evalsink"]["spec"]
    (user,) = spec["configMapTargetRef"]
    assert "evalsink" == everything["ConfigMap", user["name"]]["data"][user["key"]]
    assert {
        "password": ("evalsink-kafka", "password"),
        "ca": ("kafka-ca", "ca.crt"),
        "cert": ("evalsink-kafka-tls", "tls.crt"),
        "key": ("evalsink-kafka-tls", "tls.key"),
        "keyPassword": ("evalsink-kafka", "key-password"),
    } == {one["parameter"]: (one["name"], one["key"]) for one in spec["secretTargetRef"]}


@pytest.mark.parametrize(
    ("options", "secured"),
    [
        ("", {}),
        ("settings.security.protocol=SSL", {"tls": "enable"}),
        (f"{SASL},settings.security.mechanism=PLAIN", {"sasl": "plaintext"}),
    ],
    ids=["plaintext", "tls", "sasl"],
)
def test_keda_is_told_of_security_what_there_is(helm, options, secured):
    objects = helm.objects("--set", f"keda.enabled=true,{options}".rstrip(","))
    authentications = [name for kind, name in objects if kind == "TriggerAuthentication"]
    assert (["evalsink"] if "sasl" in secured else []) == authentications
    for trigger in objects["ScaledObject", "evalsink"]["spec"]["triggers"]:
        assert secured == {
            name: trigger["metadata"][name] for name in ("sasl", "tls") if name in trigger["metadata"]
        }
        assert ("authenticationRef" in trigger) == bool(authentications)


def test_one_topic_for_both_inputs_is_asked_for_once(helm):
    objects = helm.objects(
        "--set", "keda.enabled=true,settings.topics.samples=t,settings.topics.aggregates=t"
    )
    assert ["t"] == [
        one["metadata"]["topic"] for one in objects["ScaledObject", "evalsink"]["spec"]["triggers"]
    ]


# -- values -----------------------------------------------------------------------------------------------------------


def test_every_value_stands_in_values_yaml_with_a_comment_and_in_the_schema():
    text = read("deploy/chart/values.yaml")
    values = yaml.safe_load(text)
    schema = yaml.safe_load(read("deploy/chart/values.schema.json"))
    assert set(schema["properties"]) - {"global"} == set(values)
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if re.match(r"\w+:", line):
            # Neighbours without an empty line between them share a comment.
            before = lines[:number][::-1]
            block = before[: before.index("")]
            assert any(one.startswith("#") for one in block), line


KEYWORDS = {
    "additionalProperties",
    "enum",
    "exclusiveMinimum",
    "items",
    "maximum",
    "maxLength",
    "minimum",
    "minLength",
    "pattern",
    "properties",
    "required",
    "type",
}


def schemas(schema):
    """A schema and all within it."""
    yield schema
    for one in (
        *schema.get("properties", {}).values(),
        schema.get("items"),
        schema.get("additionalProperties"),
    ):
        if isinstance(one, dict):
            yield from schemas(one)


def test_the_schema_says_nothing_that_nobody_reads():
    """A keyword with a typo is passed over by whoever checks values."""
    document = json.loads(read("deploy/chart/values.schema.json"))
    jsonschema.Draft7Validator.check_schema(document)
    for schema in schemas(document):
        assert set(schema) - {"$schema", "title"} <= KEYWORDS
        assert set(schema.get("required", [])) <= set(schema.get("properties", {}))


REFUSED = [
    # A name, a kind or a range that does not exist.
    ("replica=3", ["replica"]),
    ("replicas=0", ["replicas"]),
    ("replicas=many", ["replicas"]),
    ("replicas=1.5", ["replicas"]),
    ("partitions=0", ["partitions"]),
    ("settings.broker=kafka:9092", ["broker"]),
    ("settings.brokers=kafka", ["brokers"]),
    ("settings.brokers=", ["brokers"]),
    ("settings.brokers=kafka://a:9092", ["brokers"]),
    ("settings.group=a/b", ["group"]),
    ("settings.durable=s3", ["durable"]),
    ("settings.drain_timeout_s=0", ["drain_timeout_s"]),
    ("settings.drain_timeout_s=null", ["drain_timeout_s"]),
    ("settings.poll_timeout_ms=soon", ["poll_timeout_ms"]),
    ("settings.poll_timeout_ms=1.5", ["poll_timeout_ms"]),
    ("settings.topics.sample=t", ["sample"]),
    ("settings.topics.samples=a b", ["samples"]),
    ("settings.security.protocol=TLS", ["protocol"]),
    ("settings.security.password=secret", ["password"]),
    ("settings.security.password_file=/etc/p", ["password_file"]),
    ("settings.hub.token=hf_x", ["token"]),
    ("settings.hub.token_file=/etc/p", ["token_file"]),
    ("settings.hub.repo=nobody", ["repo"]),
    ("settings.hub.runs=some", ["runs"]),
    ("settings.hub.eval_results[0].task=t", ["eval_results", "metric"]),
    ("settings.state=/tmp", ["state"]),
    ("settings.output=/tmp", ["output"]),
    ("settings.http=0.0.0.0:1", ["http"]),
    ("settings.group_instance_id=a", ["group_instance_id"]),
    ("secrets.kafkaPasswords.name=a", ["kafkaPasswords"]),
    ("secrets.hubToken.name=A_B", ["hubToken", "name"]),
    ("image.digest=sha256:abc", ["digest"]),
    ("image.pullPolicy=Sometimes", ["pullPolicy"]),
    ("state.size=10GB", ["state", "size"]),
    ("output.accessMode=ReadOnlyMany", ["accessMode"]),
    ("resources.limits.memory=2gb", ["memory"]),
    ("resources.limit.memory=2Gi", ["limit"]),
    ("podSecurityContext.runAsUser=0", ["runAsUser"]),
    ("podSecurityContext.privileged=true", ["privileged"]),
    ("probes.liveness.path=/readyz", ["path"]),
    ("updateStrategy.type=Recreate", ["updateStrategy", "type"]),
    ("topologySpread[0].topologyKey=zone", ["topologySpread"]),
    ("networkPolicy.brokers.ports[0]=70000", ["ports"]),
    ("podMonitor.interval=often", ["interval"]),
    ("prometheusRule.runbookUrl=a#b", ["runbookUrl"]),
    ("keda.minReplicas=0", ["minReplicas"]),
    ("keda.scaleDown.periodSeconds=3600", ["periodSeconds"]),
    ("topicsJob.replication=0", ["replication"]),
    # What fits alone, and not together.
    ("replicas=13", ["replicas is 13", "12 partitions"]),
    ("keda.enabled=true,keda.maxReplicas=13", ["keda.maxReplicas is 13", "12 partitions"]),
    ("keda.enabled=true,keda.minReplicas=7", ["keda.minReplicas is 7", "keda.maxReplicas"]),
    ("settings.durable=hub", ["settings.durable", "settings.hub.repo"]),
    ("settings.hub.repo=a/b", ["settings.hub.repo", "secrets.hubToken.name"]),
    ("secrets.hubToken.name=hub", ["secrets.hubToken.name", "settings.hub.repo"]),
    ("settings.hub.samples_repo=a/b", ["settings.hub.samples_repo", "settings.hub.repo"]),
    (
        "settings.hub.repo=a/b,secrets.hubToken.name=hub,settings.hub.commits_per_hour=60",
        ["settings.hub.commits_per_hour is 60", "3 workers"],
    ),
    (
        "settings.durable=hub,settings.hub.repo=a/b,secrets.hubToken.name=hub,output.existingClaim=c",
        ["output.existingClaim", "settings.durable"],
    ),
    ("output.accessMode=ReadWriteOnce", ["output.accessMode is ReadWriteOnce", "3 workers"]),
    (
        "output.accessMode=ReadWriteOncePod,replicas=1,keda.enabled=true",
        ["output.accessMode is ReadWriteOncePod", "6 workers"],
    ),
    ("settings.security.protocol=SASL_SSL", ["settings.security.username", "secrets.kafkaPassword.name"]),
    (
        "settings.security.protocol=SASL_SSL,settings.security.username=u",
        ["settings.security.protocol is SASL_SSL", "secrets.kafkaPassword.name"],
    ),
    (
        "settings.security.username=u",
        ["settings.security.username", "settings.security.protocol is PLAINTEXT"],
    ),
    (
        "secrets.kafkaPassword.name=p",
        ["secrets.kafkaPassword.name", "settings.security.protocol is PLAINTEXT"],
    ),
    ("secrets.kafkaCa.name=c", ["secrets.kafkaCa", "settings.security.protocol is PLAINTEXT"]),
    (
        "settings.security.protocol=SSL,secrets.kafkaKeyPassword.name=p",
        ["secrets.kafkaKeyPassword.name", "secrets.kafkaCertificate.name"],
    ),
    ("topicsJob.minInsyncReplicas=4", ["topicsJob.minInsyncReplicas is 4", "topicsJob.replication"]),
    ("topicsJob.retentionDays=0", ["retentionDays"]),
    ("extraEnv[0].name=EVALSINK_GRACE_S", ["extraEnv", "EVALSINK_GRACE_S", "settings"]),
    ("extraEnv[0].name=HF_TOKEN", ["extraEnv", "HF_TOKEN", "secrets.hubToken"]),
    ("extraEnv[0].name=KAFKA_BOOTSTRAP_SERVERS", ["extraEnv", "KAFKA_BOOTSTRAP_SERVERS", "settings.brokers"]),
]


@pytest.mark.parametrize(("options", "named"), REFUSED, ids=[options for options, _ in REFUSED])
def test_nonsense_is_refused_by_the_values_name(helm, options, named):
    with pytest.raises(RefusedError) as refusal:
        helm.template("--set", options)
    assert [] == [word for word in named if word not in str(refusal.value)], str(refusal.value)


def test_all_that_is_wrong_is_told_at_once(helm):
    with pytest.raises(RefusedError) as refusal:
        helm.template("--set", "replicas=20,settings.durable=hub,settings.security.username=u")
    assert 3 == str(refusal.value).count("\n  - ")


def test_one_worker_may_have_a_disk_of_its_own_for_the_output(helm):
    objects = helm.objects("--set", "replicas=1,output.accessMode=ReadWriteOnce")
    assert ["ReadWriteOnce"] == objects["PersistentVolumeClaim", "evalsink-output"]["spec"]["accessModes"]


def test_a_claim_that_exists_is_used_and_none_is_made(helm):
    objects = helm.objects("--set", "output.existingClaim=runs")
    assert not [kind for kind, _ in objects if kind == "PersistentVolumeClaim"]
    volumes = {one["name"]: one for one in worker(objects)["volumes"]}
    assert "runs" == volumes["output"]["persistentVolumeClaim"]["claimName"]
