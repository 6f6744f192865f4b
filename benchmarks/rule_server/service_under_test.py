"""A rule service in its production configuration, with tokens, rate limit and audit log, but no caches."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.tools.cpu_pinning import server_environment
from rule_server.api.auth import new_token
from rule_server.retrieval.build import load_or_build
from rule_server.settings import Settings


@dataclass(frozen=True)
class ServiceSetup:
    """Files and settings of the service."""

    artefact: Path
    token: str
    settings: dict[str, str]
    """ASCL_RULES_* variables of its process."""

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}


def prepare_service(folder: Path, artefact: Path | None) -> ServiceSetup:
    """Creates the token, and builds the artefact of the packaged rules unless one is given."""
    tokens = folder / "tokens.jsonl"
    token = new_token(tokens, "benchmark", ["consult", "read"], "2026-01-01T00:00:00Z")
    artefact = artefact or folder / "artefact"
    load_or_build(Settings(artefact=artefact, watch=False, threads=1), notify=lambda _: None, build=True)
    settings = {
        "ASCL_RULES_ARTEFACT": str(artefact),
        "ASCL_RULES_THREADS": "1",
        "ASCL_RULES_CACHE_SIZE": "0",
        "ASCL_RULES_WATCH": "false",
        "ASCL_RULES_TOKENS_FILE": str(tokens),
        "ASCL_RULES_RATE_LIMIT": "1000000",
        "ASCL_RULES_RATE_BURST": "1000000",
        "ASCL_RULES_AUDIT_FILE": str(folder / "audit.jsonl"),
    }
    return ServiceSetup(artefact, token, settings)


def prepare_other_version(folder: Path, checkout: Path, service: ServiceSetup) -> ServiceSetup:
    """Builds an artefact with the code and rules of a checkout, for a service with the same settings."""
    artefact = folder / "other-artefact"
    settings = service.settings | {
        "ASCL_RULES_ARTEFACT": str(artefact),
        "ASCL_RULES_AUDIT_FILE": str(folder / "other-audit.jsonl"),
    }
    subprocess.run(
        [sys.executable, "-c", "import rule_server.cli; rule_server.cli.main()", "build"],
        cwd=checkout,
        env=server_environment(PYTHONPATH=str(checkout.resolve()), **settings),
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return replace(service, artefact=artefact, settings=settings)
