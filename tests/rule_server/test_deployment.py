"""Deployment files use existing settings, routes and ports, and allow no anonymous access."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from rule_server import Settings
from tests.fakes.processes.live_server import LiveServer

ROOT = Path(__file__).resolve().parents[2]
KUBERNETES = ROOT / "deploy" / "kubernetes"
OPTIONS = sorted((KUBERNETES / "options").glob("*.yaml"))
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
PROMETHEUS = yaml.safe_load((ROOT / "deploy" / "prometheus.yml").read_text(encoding="utf-8"))
OBJECTS: dict[str, Any] = {
    document["kind"]: document
    for file in KUBERNETES.glob("*.yaml")
    for document in yaml.safe_load_all(file.read_text(encoding="utf-8"))
}
POD = OBJECTS["Deployment"]["spec"]["template"]["spec"]
[CONTAINER] = POD["containers"]
GATEWAY_PORT, PORT = map(int, re.findall(r"EXPOSE (\d+)", DOCKERFILE))


def probes() -> Iterator[dict[str, Any]]:
    yield from (CONTAINER[kind]["httpGet"] for kind in ("startupProbe", "readinessProbe", "livenessProbe"))


@pytest.mark.parametrize(
    "file",
    [
        *("Dockerfile", "docker-compose.yml", "deploy/kubernetes/deployment.yaml"),
        *("deploy/kubernetes/settings.yaml", "deploy/kubernetes/options/audit.yaml"),
    ],
)
def test_every_setting_in_deployment_files_exists(file: str) -> None:
    named = set(re.findall(r"\bASCL_RULES_([A-Z_]+)", (ROOT / file).read_text(encoding="utf-8")))
    named -= {"FOLDER", "TOKEN"}  # variables of the compose file, and the token of the gateway
    assert named
    assert {name.lower() for name in named} <= set(Settings.model_fields)


def test_probes_and_the_health_check_use_existing_routes(served: LiveServer) -> None:
    [health] = re.findall(r"\+ '(/[a-z]+)'", DOCKERFILE)
    elsewhere = {"host": "10.1.2.3"}
    for path in {health, *(probe["path"] for probe in probes())}:
        for _ in range(200):
            answer = httpx2.get(f"{served.origin}{path}", headers=elsewhere)
            if answer.status_code != 503:
                break
        assert answer.status_code == 200


def test_ports_agree() -> None:
    assert {port["containerPort"] for port in CONTAINER["ports"]} == {PORT}
    assert {probe["port"] for probe in probes()} == {"http"}
    assert [port["targetPort"] for port in OBJECTS["Service"]["spec"]["ports"]] == ["http"]
    assert [rule["ports"][0]["port"] for rule in OBJECTS["NetworkPolicy"]["spec"]["ingress"]] == ["http"]
    for name, port in (("rules", PORT), ("gateway", GATEWAY_PORT)):
        assert [entry.rpartition(":")[2] for entry in COMPOSE["services"][name]["ports"]] == [str(port)]
    assert f"--rules-url=http://rules:{PORT}/mcp" in COMPOSE["services"]["gateway"]["command"]
    [target] = PROMETHEUS["scrape_configs"][0]["static_configs"][0]["targets"]
    assert target == f"rules:{PORT}"


def test_every_object_selects_the_pods_of_the_deployment() -> None:
    labels = OBJECTS["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert OBJECTS["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert OBJECTS["Service"]["spec"]["selector"] == labels
    assert OBJECTS["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    assert OBJECTS["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"] == labels
    scaled = OBJECTS["HorizontalPodAutoscaler"]["spec"]
    assert scaled["scaleTargetRef"]["name"] == OBJECTS["Deployment"]["metadata"]["name"]
    assert scaled["minReplicas"] > OBJECTS["PodDisruptionBudget"]["spec"]["minAvailable"]
    listed = {*OBJECTS["Kustomization"]["resources"], "kustomization.yaml"}
    assert listed == {file.name for file in KUBERNETES.glob("*.yaml")}


def test_the_options_fit_the_objects_that_they_extend() -> None:
    text = (KUBERNETES / "kustomization.yaml").read_text(encoding="utf-8")
    assert set(re.findall(r"options/[a-z-]+\.yaml", text)) == {f"options/{file.name}" for file in OPTIONS}
    options = {file.stem: yaml.safe_load(file.read_text(encoding="utf-8")) for file in OPTIONS}
    service, [port] = OBJECTS["Service"]["metadata"], OBJECTS["Service"]["spec"]["ports"]
    [host] = options["ingress"]["spec"]["rules"]
    backend = host["http"]["paths"][0]["backend"]["service"]
    assert (backend["name"], backend["port"]["name"]) == (service["name"], port["name"])
    monitor = options["service-monitor"]["spec"]
    assert monitor["selector"]["matchLabels"] == service["labels"]
    assert monitor["endpoints"][0]["port"] == port["name"]
    patch = options["audit"]
    assert patch["metadata"]["name"] == OBJECTS["Deployment"]["metadata"]["name"]
    [container] = patch["spec"]["template"]["spec"]["containers"]
    assert container["name"] == CONTAINER["name"]
    [volume] = patch["spec"]["template"]["spec"]["volumes"]
    assert volume["persistentVolumeClaim"]["claimName"] == options["audit-claim"]["metadata"]["name"]
    assert [mount["name"] for mount in container["volumeMounts"]] == [volume["name"]]


def test_containers_run_unprivileged_on_a_read_only_root() -> None:
    assert POD["securityContext"]["runAsNonRoot"] is True
    assert f"USER {POD['securityContext']['runAsUser']}:" in DOCKERFILE
    assert CONTAINER["securityContext"]["readOnlyRootFilesystem"] is True
    assert CONTAINER["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert POD["automountServiceAccountToken"] is False
    assert OBJECTS["NetworkPolicy"]["spec"]["egress"] == []
    for service in COMPOSE["services"].values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])


def test_nothing_serves_anonymously_and_mounted_secrets_are_the_configured_ones() -> None:
    environment = {entry["name"]: entry["value"] for entry in CONTAINER["env"]}
    mounts = {mount["name"]: mount["mountPath"] for mount in CONTAINER["volumeMounts"]}
    assert environment["ASCL_RULES_TOKENS_FILE"] == f"{mounts['tokens']}/tokens.jsonl"
    rules = COMPOSE["services"]["rules"]
    folders = dict(volume.rsplit(":ro", 1)[0].rsplit(":", 1)[::-1] for volume in rules["volumes"])
    assert rules["environment"]["ASCL_RULES_DIR"] in folders
    assert str(Path(rules["environment"]["ASCL_RULES_TOKENS_FILE"]).parent) in folders
    assert rules["environment"]["ASCL_RULES_CREATE_TOKEN"] == "true"
    used = {name for service in COMPOSE["services"].values() for name in service.get("secrets", [])}
    assert used == set(COMPOSE["secrets"])
    [scrape] = PROMETHEUS["scrape_configs"]
    assert scrape["authorization"]["credentials_file"] == "/run/secrets/prometheus_token"
    for text in (DOCKERFILE, str(COMPOSE), str(OBJECTS)):
        lines = [line for line in text.splitlines() if not line.startswith("#")]
        assert "ANONYMOUS" not in "".join(lines)
