"""Validates the compose file and the Kubernetes manifests against published schemas."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.clients.fetched import run, venv

pytestmark = pytest.mark.clients
ROOT = Path(__file__).resolve().parents[2]
# Left out: a kustomization, a patch, and a custom resource have no schema here.
NO_SCHEMA = ("kustomization.yaml", "audit.yaml", "service-monitor.yaml")
MANIFESTS = sorted(
    file for file in (ROOT / "deploy" / "kubernetes").rglob("*.yaml") if file.name not in NO_SCHEMA
)
CHECK = """
import pathlib, re, sys
from compose_spec import PyCompose

# Docker's name for the host's address, which this checker does not know.
text = pathlib.Path(sys.argv[1]).read_text().replace("host-gateway", "172.17.0.1")
project = PyCompose.from_yaml(re.sub(r"\\$\\{\\w+:-([^}]*)\\}", r"\\1", text))
project.validate()
print(*sorted(project.service_names()))
"""


@pytest.mark.parametrize("version", ["1.29", "1.37"])
def test_kubernetes_accepts_every_manifest(version: str) -> None:
    python = venv("kubernetes", "kubernetes-validate==1.37.0")
    output = run(python.with_name("kubernetes-validate"), "-k", version, "--strict", *MANIFESTS, cwd=ROOT)
    assert output.count("passed") == len(MANIFESTS), output


def test_the_compose_file_follows_the_compose_specification() -> None:
    python = venv("compose", "compose-spec==0.2.1")
    assert run(python, "-c", CHECK, ROOT / "docker-compose.yml", cwd=ROOT) == "gateway prometheus rules\n"


@pytest.mark.skipif(shutil.which("docker-compose") is None, reason="docker-compose is not installed")
def test_docker_compose_accepts_the_compose_file(tmp_path: Path) -> None:
    output = run("docker-compose", "-f", ROOT / "docker-compose.yml", "config", cwd=tmp_path)
    assert "127.0.0.1:8808:8808" in output
