"""Checks that server.json and the bundle's manifest meet the registry's limits and describe this service."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

from rule_server.api.mcp_server import HINT_PROMPT, PROMPT, RULE_TOOL
from rule_server.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
SERVER = json.loads((ROOT / "server.json").read_text(encoding="utf-8"))
MANIFEST = json.loads((ROOT / "deploy" / "mcpb" / "manifest.json").read_text(encoding="utf-8"))
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
# Fields that the schema named in server.json (2025-12-11) allows at the top and in a package.
TOP = {"$schema", "name", "title", "description", "version", "packages", "remotes", "repository"}
PACKAGE = {"registryType", "identifier", "version", "runtimeHint", "transport", "fileSha256"}
PACKAGE |= {"packageArguments", "runtimeArguments", "environmentVariables", "registryBaseUrl"}


def test_server_json_meets_the_limits_of_the_registry() -> None:
    assert set(SERVER) <= TOP
    assert re.fullmatch(r"[a-zA-Z0-9.-]+/[a-zA-Z0-9._-]+", SERVER["name"])
    assert 1 <= len(SERVER["description"]) <= 100
    assert 1 <= len(SERVER["title"]) <= 100
    [package] = SERVER["packages"]
    assert set(package) <= PACKAGE
    assert package["registryType"] == "oci"
    # The tag states the version of an image; the registry rejects a separate field.
    assert "version" not in package
    assert package["identifier"].endswith(f":{VERSION}")
    assert package["packageArguments"] == [{"type": "positional", "value": "stdio"}]


def test_the_image_carries_the_server_name_of_server_json() -> None:
    assert f'io.modelcontextprotocol.server.name="{SERVER["name"]}"' in DOCKERFILE
    assert 'ENTRYPOINT ["ascl-rules"]' in DOCKERFILE


@pytest.mark.parametrize("document", [SERVER, MANIFEST], ids=["server.json", "manifest.json"])
def test_versions_agree(document: dict[str, str]) -> None:
    assert document["version"] == VERSION


def test_every_offered_setting_exists() -> None:
    offered = [variable["name"] for variable in SERVER["packages"][0]["environmentVariables"]]
    for name in [*offered, *MANIFEST["server"]["mcp_config"]["env"]]:
        assert name.removeprefix("ASCL_RULES_").lower() in Settings.model_fields


def test_the_manifest_lists_what_the_service_offers() -> None:
    assert [tool["name"] for tool in MANIFEST["tools"]] == [RULE_TOOL]
    assert [prompt["name"] for prompt in MANIFEST["prompts"]] == [PROMPT, HINT_PROMPT]
    assert (ROOT / "deploy" / "mcpb" / MANIFEST["server"]["entry_point"]).is_file()
