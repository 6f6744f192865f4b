"""Settings of the service: every one is an environment variable ASCL_RULES_<NAME>; flags override them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict, SettingsError

from rule_server.errors import StartError

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def is_loopback(host: str) -> bool:
    """Whether only this machine has that address or name."""
    return host in LOOPBACK or host.startswith("127.")


TOOL_DESCRIPTION = (
    "Look up written safety rules. Call it when a request is delicate or might cause harm (violence, "
    "weapons, crime, drugs, hacking, fraud, hate, sex, self-harm, private data, medical, legal or money "
    "advice), or only sounds so and you are unsure how far to go. Do not call it for everyday requests "
    "such as maths, coding, writing, cooking or small talk. Returns the nearest rules: what is fine, what"
    " is not, how to answer; or no_applicable_rule: then answer as usual."
)


def _default_artefact() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "ascl" / "rules"


def packaged_rules() -> Path:
    """Our own rulebook: `rules/` beside this package, in the checkout and in the wheel alike."""
    return Path(__file__).resolve().parent.parent / "rules"


class Settings(BaseSettings):
    """What the service is started with. An unknown or malformed value is an error, never a guess."""

    model_config = SettingsConfigDict(
        env_prefix="ASCL_RULES_", extra="forbid", frozen=True, use_attribute_docstrings=True
    )

    dir: Annotated[tuple[Path, ...], NoDecode] = ()
    """Folders of the rulebook, the lowest layer first (in the environment joined by `:`, as in PATH); none:
    our own, unless the artefact was built from a folder that was named."""
    artefact: Path = Field(default_factory=_default_artefact)
    """Folder of the index artefact: the encoder and the rulebooks' vectors."""
    model: str | None = None
    """Folder or hub name of the embedding model; None: all-MiniLM-L6-v2."""
    prefix: str = Field("", max_length=200)
    """Put before every text, where the model was trained so (`query: ` for the E5 family)."""
    threads: int = Field(2, ge=1, le=256)
    """CPU threads of the encoder. More than the cores at hand makes every request slower."""
    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = Field(8808, ge=0, le=65535)
    """Port to listen on; 0 takes a free one."""
    allow_anonymous: bool = False
    """Serve addresses other than loopback without asking callers who they are; they may consult and read."""
    tokens_file: Path | None = None
    """File of hashed bearer tokens, as `ascl-rules token new` writes it; read again when it changes."""
    oauth_issuer: str | None = None
    """Authorization server whose access tokens are accepted: the exact `iss` of its tokens."""
    oauth_jwks: str | None = None
    """Its public keys: the https address of a JSON Web Key Set, or a file."""
    resource_url: str | None = Field(None, pattern=r"^https?://[^/?#\s]+[^?#\s]*$")
    """Address of the MCP endpoint as clients know it: the audience that access tokens must name."""
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = ()
    """Names, comma-separated, that a Host header may hold beside the loopback ones; `*` allows every name."""
    allowed_origins: Annotated[tuple[str, ...], NoDecode] = ()
    """Origins, comma-separated, of web pages elsewhere that may ask (https://example.org)."""
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = ()
    """Addresses, comma-separated, of reverse proxies whose X-Forwarded-For and X-Forwarded-Proto count."""
    max_body: int = Field(1 << 20, ge=1024)
    """Bytes that a request body may have; more are answered 413."""
    body_timeout: float = Field(10, gt=0, le=600)
    """Seconds in which a body must have arrived; else 408. A connection without a request lives as long."""
    request_timeout: float = Field(30, gt=0, le=3600)
    """Seconds after which a request is answered 503."""
    concurrency: int = Field(512, ge=1)
    """Requests under way at once; more are answered 503."""
    connections: int = Field(2048, ge=1)
    """Connections at once; requests on more are answered 503."""
    rate_limit: float = Field(100, ge=0, le=1e6)
    """Requests a second of each caller, on average; more are answered 429. 0: no limit. Callers on loopback
    that need no token have none."""
    rate_burst: int = Field(200, ge=1, le=1_000_000)
    """Requests of a caller that may come at once."""
    default_top_k: int = Field(3, ge=1, le=10)
    """Rules returned when the caller names no number."""
    threshold: float | None = Field(None, ge=-2, le=2)
    """Score below which no rule applies; None: the calibrated one of the artefact, else a default."""
    cache_size: int = Field(2048, ge=0)
    """Answers kept per rulebook digest, so that a repeated question costs no embedding."""
    snapshots: int = Field(8, ge=1, le=100)
    """Rulebooks that can be asked by their digest: the present one and those before it."""
    watch: bool = True
    """Follow edits of the rules folder while serving."""
    audit_file: Path | None = None
    """Write a JSON line a consultation to this file; None: no audit log."""
    audit_key_file: Path | None = None
    """Key of the questions' hashes, 16 bytes or more; None: a random one beside the audit log."""
    audit_text: bool = False
    """Keep the questions themselves in the audit log, and not their hash and length alone."""
    audit_mask: bool = True
    """Replace e-mail and IP addresses, phone and card numbers in questions that are kept."""
    audit_retention_days: int = Field(30, ge=1, le=3650)
    """No line of the audit log grows older than so many days."""
    audit_max_bytes: int = Field(100 << 20, ge=4096)
    """The audit log is set aside and begun anew at this size, and every day."""
    audit_files: int = Field(100, ge=1, le=10_000)
    """Audit logs set aside that are kept at most."""
    log_format: Literal["text", "json"] = "text"
    """How the service logs to standard error."""
    access_log: bool = False
    """Log every request: caller, method, route, status, seconds."""
    otlp_endpoint: str | None = Field(None, pattern=r"^https?://")
    """Send OpenTelemetry spans there (http://collector:4318/v1/traces); needs `ascl[telemetry]`."""
    variables: dict[str, str] = Field(default_factory=dict)
    """Values for `{{name}}` in rule texts, as JSON: {"crisis_line": "116 123"}."""
    tool_description: str = Field(TOOL_DESCRIPTION, min_length=1, max_length=2000)
    """What the model reads about the tool: a prompt, and yours to tune."""

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

    @field_validator("*", mode="before")
    @classmethod
    def _blank_is_unset(cls, value: object, info: ValidationInfo) -> object:
        """A variable that is there and empty, as deployment files write it, sets nothing."""
        optional = info.field_name is not None and cls.model_fields[info.field_name].default is None
        return None if optional and isinstance(value, str) and not value.strip() else value

    @property
    def loopback(self) -> bool:
        return is_loopback(self.host)

    @property
    def exposed(self) -> bool:
        """Whether others than this machine may ask: at its address, or through a proxy before it."""
        return not self.loopback or bool(self.trusted_proxies) or bool(self.allowed_hosts)


def load_settings(**flags: object) -> Settings:
    """Settings from the environment, overridden by the flags that are not None.

    Raises:
        StartError: naming the setting that cannot be used.
    """
    known = {f"ASCL_RULES_{name.upper()}" for name in Settings.model_fields}
    unknown = sorted(name for name in os.environ if name.startswith("ASCL_RULES_") and name not in known)
    if unknown:
        raise StartError(f"{unknown[0]} is no setting: remove it (known: {', '.join(sorted(known))})")
    try:
        given = {name: value for name, value in flags.items() if value is not None and value != []}
        return Settings.model_validate(given)
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
