"""Settings of the service.

Each is an environment variable ASCL_RULES_<NAME>; command-line flags override it.
"""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Annotated, Literal

import platformdirs
from pydantic import Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict, SettingsError

from rule_server.errors import StartError

Precision = Literal["auto", "exact", "int8"]
"""Precision in which questions are encoded; see `Settings.precision`."""
LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "::1")


def is_loopback(host: str) -> bool:
    """Returns whether a host is `localhost` or a loopback address: 127.0.0.0/8, ::1 or ::ffff:127.x.x.x.

    Other names count as remote, since DNS may resolve them to any address. IPv6 may stand in brackets.
    """
    if host.lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host[1:-1] if host.startswith("[") and host.endswith("]") else host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def _default_artefact() -> Path:
    override = os.environ.get("ASCL_CACHE")
    cache = Path(override).expanduser() if override else platformdirs.user_cache_path("ascl", appauthor=False)
    return cache / "rules"


def packaged_rules() -> Path:
    """Returns the folder of the packaged rulebook: `rules/` beside this package, also in the wheel."""
    return Path(__file__).resolve().parent.parent / "rules"


class Settings(BaseSettings):
    """Settings of the service. An unknown or malformed value is an error, never a guess."""

    model_config = SettingsConfigDict(
        env_prefix="ASCL_RULES_", extra="forbid", frozen=True, use_attribute_docstrings=True
    )

    dir: Annotated[tuple[Path, ...], NoDecode] = ()
    """Rules folders, lowest layer first (in the environment separated by `:`, as in PATH). Empty: the
    packaged rules, unless the artefact was built from a named folder."""
    artefact: Path = Field(default_factory=_default_artefact)
    """Folder of the index artefact: the encoder and the vectors of the rulebooks."""
    model: str | None = None
    """Folder or hub name of the embedding model. None: all-MiniLM-L6-v2."""
    prefix: str = Field("", max_length=200)
    """Prefix of every embedded text, for models trained with one (`query: ` for the E5 family)."""
    threads: int = Field(2, ge=1, le=256)
    """CPU threads of the encoder. More threads than cores slow every request down."""
    precision: Precision = "auto"
    """Precision in which questions are encoded. `int8`: about twice as fast, on processors with AVX2 (x86-64)
    or dotprod (ARM); about one first rule in 50 differs. `auto`: int8 on such processors, else exact."""
    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = Field(8808, ge=0, le=65535)
    """Port to listen on. 0: any free port."""
    allow_anonymous: bool = False
    """Serve other machines without authentication. Anonymous callers may consult and read."""
    tokens_file: Path | None = None
    """File of hashed bearer tokens, written by `ascl-rules token new`. The service reloads it when it
    changes."""
    create_token: bool = False
    """If the token file does not exist, create it at the start with one token for the scopes consult and
    read, and print that token once on standard output."""
    oauth_issuer: str | None = None
    """OAuth authorization server whose access tokens are accepted: the exact `iss` claim."""
    oauth_jwks: str | None = None
    """Public keys of that server: the https URL of a JSON Web Key Set, or a file."""
    resource_url: str | None = Field(None, pattern=r"^https?://[^/?#\s]+[^?#\s]*$")
    """Public URL of the MCP endpoint: the audience (`aud`) that access tokens must have."""
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = ()
    """Host header names to accept besides loopback, comma-separated. `*`: any name."""
    allowed_origins: Annotated[tuple[str, ...], NoDecode] = ()
    """Origins of other websites that may call the service (https://example.org), comma-separated."""
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = ()
    """Addresses of reverse proxies whose X-Forwarded-For and X-Forwarded-Proto are trusted,
    comma-separated."""
    max_body: int = Field(1 << 20, ge=1024)
    """Maximum request body in bytes. A larger body gets a 413."""
    body_timeout: float = Field(10, gt=0, le=600)
    """Seconds in which a body must arrive, else 408. Also how long a connection may stay without a
    request."""
    request_timeout: float = Field(30, gt=0, le=3600)
    """Seconds after which a request gets a 503."""
    concurrency: int = Field(512, ge=1)
    """Maximum concurrent requests. Others get a 503."""
    connections: int = Field(2048, ge=1)
    """Maximum open connections. Requests on others get a 503."""
    rate_limit: float = Field(100, ge=0, le=1e6)
    """Average requests per second of each caller. Others get a 429. 0: no limit. Callers on loopback that
    need no token are not limited."""
    rate_burst: int = Field(400, ge=1, le=1_000_000)
    """Requests that one caller may send in a burst. A gateway is one caller for all its users. Less than
    `concurrency`, so that one caller's burst leaves room for others."""
    default_top_k: int = Field(3, ge=1, le=10)
    """Number of rules returned when the request has no `top_k`."""
    threshold: float | None = Field(None, ge=-2, le=2)
    """Score below which no rule applies. None: the artefact's calibrated threshold, else a default."""
    cache_size: int = Field(2048, ge=0)
    """Size of the response cache, in entries. A repeated question needs no embedding."""
    snapshots: int = Field(8, ge=1, le=100)
    """Rulebooks that can be queried by digest: the current one and the previous ones."""
    watch: bool | Literal["poll"] = True
    """Reload the rules folder when it changes. `poll`: compare its files every second, for folders whose file
    system sends no notifications. A network file system that is recognised, such as NFS, is always polled."""
    audit_file: Path | None = None
    """Audit log: one JSON line per consultation. None: no audit log."""
    audit_key_file: Path | None = None
    """File with the key of the question hashes, 16 bytes or more. None: a random key beside the audit log."""
    audit_text: bool = False
    """Write question texts to the audit log, not only their hash and length."""
    audit_mask: bool = True
    """Mask e-mail and IP addresses, phone and card numbers in logged questions."""
    audit_retention_days: int = Field(30, ge=1, le=3650)
    """Maximum age of an audit log line in days."""
    audit_max_bytes: int = Field(100 << 20, ge=4096)
    """Size in bytes at which the audit log is rotated. It is also rotated every day."""
    audit_files: int = Field(100, ge=1, le=10_000)
    """Maximum number of rotated audit logs."""
    log_format: Literal["text", "json"] = "text"
    """Format of the log on standard error."""
    access_log: bool = False
    """Log every request: caller, method, route, status and seconds."""
    otlp_endpoint: str | None = Field(None, pattern=r"^https?://")
    """OTLP endpoint for OpenTelemetry spans (http://collector:4318/v1/traces). Needs `ascl[telemetry]`."""
    variables: dict[str, str] = Field(default_factory=dict)
    """Values for `{{name}}` in rule texts, as JSON: {"crisis_line": "116 123"}."""
    tool_description: str | None = Field(None, min_length=1, max_length=2000)
    """Tool description that the model reads, a prompt. None: a text with `consult_when` of rulebook.yaml."""

    @field_validator("dir", mode="before")
    @classmethod
    def _folders(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(Path(part) for part in value.split(os.pathsep) if part)
        return (value,) if isinstance(value, Path) else tuple(value) if isinstance(value, list) else value

    @field_validator("allowed_hosts", "allowed_origins", "trusted_proxies", mode="before")
    @classmethod
    def _comma_separated(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("host")
    @classmethod
    def _without_brackets(cls, value: str) -> str:
        """Accepts an IPv6 address in brackets, as in a URL: [::1]."""
        host = value.strip()
        return host[1:-1] if host.startswith("[") and host.endswith("]") else host

    @field_validator("watch", mode="before")
    @classmethod
    def _true_false_or_poll(cls, value: object) -> object:
        if isinstance(value, str):
            values = {"true": True, "1": True, "yes": True, "on": True, "t": True, "y": True, "poll": "poll"}
            values |= {"false": False, "0": False, "no": False, "off": False, "f": False, "n": False}
            if (known := values.get(value.strip().lower())) is None:
                raise ValueError("it must be true, false or poll")
            return known
        return value

    @field_validator("*", mode="before")
    @classmethod
    def _blank_is_unset(cls, value: object, info: ValidationInfo) -> object:
        """Treats a blank environment variable, which deployment files often contain, as unset."""
        optional = info.field_name is not None and cls.model_fields[info.field_name].default is None
        return None if optional and isinstance(value, str) and not value.strip() else value

    @property
    def loopback(self) -> bool:
        return is_loopback(self.host)

    @property
    def exposed(self) -> bool:
        """Whether other machines can reach the service: at its address, or through a reverse proxy."""
        return not self.loopback or bool(self.trusted_proxies) or bool(self.allowed_hosts)


_OF_CLIENTS = {"ASCL_RULES_URL", "ASCL_RULES_TOKEN"}
"""Variables of the service's clients, which may share its shell."""


def load_settings(**flags: object) -> Settings:
    """Loads the settings from the environment; flags that are not None override them.

    Raises:
        StartError: a setting is unknown or invalid; the message names it.
    """
    variables = {f"ASCL_RULES_{name.upper()}" for name in Settings.model_fields}
    given = {name for name in os.environ if name.startswith("ASCL_RULES_")}
    unknown = sorted(given - variables - _OF_CLIENTS)
    if unknown:
        raise StartError(f"{unknown[0]} is not a setting: remove it (known: {', '.join(sorted(variables))})")
    try:
        values = {name: value for name, value in flags.items() if value is not None and value != []}
        return Settings.model_validate(values)
    except SettingsError as error:
        raise StartError(
            f'{error}: write JSON, as in ASCL_RULES_VARIABLES=\'{{"crisis_line": "116 123"}}\''
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        raise StartError(
            f"the setting {name} (ASCL_RULES_{name.upper()}) is {first['input']!r}: {first['msg']}"
        ) from None
