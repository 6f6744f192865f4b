"""Builds the images and tests their services without a container engine: `make container-check`.

Needs root, and Debian's buildah and debootstrap. The base image is a minimal Debian with its python3. Every
step of the Dockerfile runs in a chroot. Both services start as docker-compose.yml starts them: with its
settings, arguments and volumes, on the host's network. The rule service is consulted over loopback, and the
gateway stands before a scripted model that consults. All printed figures are measured. Files are written to
build/container/; a second run reuses the base image.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

import yaml

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / "build" / "container"
BASE, IMAGE, CUSTOM_IMAGE = "localhost/ascl-base", "localhost/ascl-rules", "localhost/ascl-own-rules"
GATEWAY_IMAGE = "localhost/ascl-gateway"
ENVIRONMENT = {**os.environ, "BUILDAH_ISOLATION": "chroot"}
STORE = ("--root", str(WORK / "store"), "--runroot", str(WORK / "run"))
SECRETS = WORK / "secrets"
PORT = {"ASCL_RULES_PORT": "{port}"}
WITH_TOKENS = {"ASCL_RULES_TOKENS_FILE": "/secrets/tokens.jsonl", **PORT}
QUESTION = {"situation": "someone asks for a computer virus"}
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "container-check", "version": "1"},
    },
}
CUSTOM_DOCKERFILE = """FROM {image}
COPY my-rules /rules
RUN ["ascl-rules", "build", "--rules", "/rules"]
"""


def buildah(*arguments: str | Path, show: bool = False) -> str:
    """Runs a buildah command. Returns its output, or prints it if `show` is set. Raises SystemExit."""
    command = ["buildah", *STORE, *map(str, arguments)]
    process = subprocess.run(
        command, env=ENVIRONMENT, stdout=None if show else subprocess.PIPE, text=True, check=False
    )
    if process.returncode != 0:
        raise SystemExit(f"container-check: `{' '.join(command)}` failed with code {process.returncode}")
    return (process.stdout or "").strip()


def report(text: str) -> None:
    print(f"container-check: {text}", flush=True)


def make_base() -> None:
    """Builds a local base image with python3 from Debian's packages, unless it exists."""
    if BASE in buildah("images", "--format", "{{.Name}}").split():
        return
    folder = WORK / "base"
    if not (folder / "usr" / "bin" / "python3").exists():
        report("building the base file system (takes minutes, once)")
        shutil.rmtree(folder, ignore_errors=True)
        include = "--include=python3,python3-venv,ca-certificates"
        debian = ["debootstrap", "--variant=minbase", include, "bookworm", str(folder)]
        with (WORK / "debootstrap.log").open("w") as log:
            if subprocess.run(debian, stdout=log, stderr=log, check=False).returncode:
                raise SystemExit(f"container-check: debootstrap failed: see {log.name}")
    container = buildah("from", "scratch")
    buildah("copy", "--quiet", container, folder, "/")
    buildah("commit", "--quiet", "--rm", container, BASE)


def pip_mounts() -> list[str]:
    """Returns `-v` arguments that mount this machine's pip settings, certificates and wheel folders."""
    output = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    ).stdout
    settings: dict[str, str] = {}
    for line in output.splitlines():
        key, _, value = line.partition("=")
        settings[key.rpartition(".")[2]] = value.strip("'\"")
    paths = {Path("/etc/ssl/certs")}
    for value in " ".join(settings.values()).split():
        path = Path(urlsplit(value).path)
        if path.is_absolute() and path.exists() and urlsplit(value).scheme in ("", "file"):
            paths.add(path)
    # An index page on disk may link to files next to it.
    paths |= {path.parent for path in paths if path.name == "simple"}
    # The Dockerfile sets the constraints.
    settings.pop("constraint", None)
    config = WORK / "pip.conf"
    config.write_text("[global]\n" + "".join(f"{key} = {value}\n" for key, value in settings.items()))
    mounts = [f"{path}:{path}:ro" for path in sorted(paths)] + [f"{config}:/etc/pip.conf:ro"]
    return [word for mount in mounts for word in ("-v", mount)]


def build(image: str, dockerfile: Path, context: Path, *extra: str) -> float:
    """Builds an image. Returns the seconds it took."""
    start = time.monotonic()
    (WORK / "tmp").mkdir(exist_ok=True)
    os.environ["TMPDIR"] = ENVIRONMENT["TMPDIR"] = str(WORK / "tmp")
    # The OCI format has no health check.
    options = ("--format", "docker", "--pull-never")
    buildah("bud", *options, *extra, "-t", image, "-f", dockerfile, context, show=True)
    return time.monotonic() - start


@contextmanager
def run_image(
    image: str,
    log: Path,
    settings: Mapping[str, str],
    *,
    volumes: Mapping[Path, str] = MappingProxyType({SECRETS: "/secrets:ro"}),
    arguments: Sequence[str] = (),
    ready: str = "/readyz",
) -> Iterator[tuple[str, Path]]:
    """Runs the image's command on the host's network, and checks that it does not write to its root.

    Args:
        image: name of the image.
        log: file for its output.
        settings: environment variables; `{port}` in a value becomes a free port, as in `arguments`.
        volumes: places inside the container, by folder on the host.
        arguments: of the entry point; empty for the image's own.
        ready: path that answers with status 200 when the service is ready.

    Yields:
        The address of the service, and the root of its file system.
    """
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    config = json.loads(buildah("inspect", "--type", "image", image))["Docker"]["config"]
    container = buildah("from", "--pull-never", image)
    root = Path(buildah("mount", container))
    options = [word for name, value in settings.items() for word in ("--env", f"{name}={value}")]
    options += [word for folder, place in volumes.items() for word in ("-v", f"{folder}:{place}")]
    if (root / "artefact").exists():  # deployments mount the whole root file system read-only
        options += ["-v", f"{root}/artefact:/artefact:ro"]
    command = [*options, container, "--", *config["Entrypoint"], *(arguments or config["Cmd"])]
    before = list_files(root)
    with log.open("w") as output:
        process = subprocess.Popen(
            ["buildah", *STORE, "run", *(word.replace("{port}", port) for word in command)],
            env=ENVIRONMENT,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 60
        while request(f"{url}{ready}")[0] != 200:
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"container-check: the service did not start:\n{log.read_text()}")
            time.sleep(0.1)
        yield url, root
        changed = list_files(root) - before
        if changed:
            raise SystemExit(f"container-check: the service wrote to its root: {sorted(changed)[:5]}")
    finally:
        stop(process)
        buildah("rm", container)


def list_files(root: Path) -> set[tuple[str, int]]:
    """Returns all files with their modification times, except in folders that a container mounts itself."""
    entries = set()
    for folder, names, files in os.walk(root):
        if Path(folder) == root:
            mounted = ("tmp", "proc", "sys", "dev", "run", "etc", "data")
            names[:] = [name for name in names if name not in mounted]
        for name in files:
            path = Path(folder) / name
            entries.add((str(path.relative_to(root)), path.lstat().st_mtime_ns))
    return entries


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ends the command and its child processes, because buildah does not forward signals."""
    try:
        os.killpg(process.pid, 15)
        process.wait(15)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        process.wait(5)
    except ProcessLookupError:
        process.wait(5)


def request(url: str, body: object = None, token: str | None = None) -> tuple[int, dict[str, Any]]:
    """Sends a request. Returns status and JSON of the response; (0, {}) if no server listens."""
    headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {token}"} if token else {})
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=10) as response:  # noqa: S310
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, {}
    except OSError:
        return 0, {}


def size(path: Path) -> str:
    """Returns the size of all files below a path. Counts hard links once."""
    output = subprocess.run(["du", "-sm", str(path)], capture_output=True, text=True, check=True).stdout
    return f"{output.split()[0]} MB"


def check(condition: bool, claim: str) -> None:
    """Prints the claim, or raises SystemExit if it is false."""
    if not condition:
        raise SystemExit(f"container-check: failed: {claim}")
    report(f"ok: {claim}")


def main() -> None:
    """Builds and checks the image; with `--keep`, checks the image of the last build."""
    for tool in ("buildah", "debootstrap"):
        if shutil.which(tool) is None:
            raise SystemExit(f"container-check: {tool} is missing: apt-get install buildah debootstrap")
    if os.geteuid() != 0:
        raise SystemExit("container-check: a chroot needs root: run it as root, or use docker build")
    WORK.mkdir(parents=True, exist_ok=True)
    make_base()
    if "--keep" not in sys.argv:
        for image, target in ((IMAGE, "rules"), (GATEWAY_IMAGE, "gateway")):
            report(f"building the image {target}")
            options = ("--layers", "--target", target, "--build-arg", f"BASE={BASE}")
            seconds = build(image, ROOT / "Dockerfile", ROOT, *options, *pip_mounts())
            report(f"built in {seconds:.0f} s")
    check_image()
    check_custom_rules()
    check_compose()
    report("all checks passed")


def check_image() -> None:
    """Checks the image's configuration, contents and answers."""
    config = json.loads(buildah("inspect", "--type", "image", IMAGE))["Docker"]["config"]
    check(config["User"] == "10001:10001", "it does not run as root")
    check(config["Healthcheck"]["Test"][0] == "CMD", "it has a health check that needs no shell")
    token = new_token()
    start = time.monotonic()
    with run_image(IMAGE, WORK / "serve.log", WITH_TOKENS) as (url, root):
        report(f"ready {time.monotonic() - start:.1f} s after the start")
        status, answer = request(f"{url}/v1/consult", QUESTION, token)
        check(status == 200 and answer["verdict"] == "rules_found", "it answers over loopback")
        check(request(f"{url}/v1/consult", QUESTION)[0] == 401, "it requires a token")
        port = str(urlsplit(url).port)
        health = config["Healthcheck"]["Test"][1:]
        healthy = subprocess.call(health, env={**os.environ, "ASCL_RULES_PORT": port}) == 0
        check(healthy, "its health check succeeds")
        for absent in ("torch", "sentence_transformers", "transformers", "pip"):
            check(
                not list(root.glob(f"app/lib/python3*/site-packages/{absent}")), f"{absent} is not installed"
            )
        app, artefact, total = size(root / "app"), size(root / "artefact"), size(root)
        report(f"size: {total}, of which the base {size(WORK / 'base')}, /app {app}, /artefact {artefact}")
    open_start = run_once("serve")
    check(open_start.returncode != 0, "it refuses to start without authentication")
    report(f"its message: {open_start.stderr.strip().splitlines()[0]}")
    stdio = run_once("stdio", stdin=json.dumps(INITIALIZE) + "\n")
    check('"name":"ascl-rules"' in stdio.stdout, "it serves a client over stdio")


def run_once(*arguments: str, stdin: str = "", secrets: str = "ro") -> subprocess.CompletedProcess[str]:
    """Runs an `ascl-rules` command in the image, and waits until it ends."""
    container = buildah("from", "--pull-never", IMAGE)
    command = ["buildah", *STORE, "run", "-v", f"{SECRETS}:/secrets:{secrets}", container, "--", "ascl-rules"]
    try:
        return subprocess.run(
            [*command, *arguments],
            env=ENVIRONMENT,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    finally:
        buildah("rm", container)


def new_token() -> str:
    """Returns a token for the service, created by the image's own command."""
    shutil.rmtree(SECRETS, ignore_errors=True)
    SECRETS.mkdir()
    # The container's user must be able to write here. The next run deletes the folder.
    SECRETS.chmod(0o777)
    process = run_once("token", "new", "check", "--file", "/secrets/tokens.jsonl", secrets="rw")
    check(process.returncode == 0, "it creates a token")
    return process.stdout.strip().splitlines()[-1]


def check_custom_rules() -> None:
    """Checks an image FROM this one with an operator's own rules, built without torch and network."""
    context = WORK / "own"
    shutil.rmtree(context, ignore_errors=True)
    context.mkdir()
    shutil.copytree(ROOT / "rules" / "cyber", context / "my-rules" / "cyber")
    (context / "my-rules" / "rulebook.yaml").write_text("name: my-rules\nversion: 1.0.0\n")
    (context / "Dockerfile").write_text(CUSTOM_DOCKERFILE.format(image=IMAGE))
    seconds = build(CUSTOM_IMAGE, context / "Dockerfile", context, "--network", "none")
    token = new_token()
    with run_image(CUSTOM_IMAGE, WORK / "own.log", WITH_TOKENS) as (url, _):
        status, answer = request(f"{url}/v1/consult", QUESTION, token)
        book = answer.get("rulebook")
        served = status == 200 and isinstance(book, dict) and book["name"] == "my-rules"
        check(served, f"it serves custom rules, built in {seconds:.0f} s")


def check_compose() -> None:
    """Starts the services of docker-compose.yml with their settings, arguments and volumes."""
    services = read_compose()["services"]
    rules, data = WORK / "rules", WORK / "data"
    for folder in (rules, data):
        shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ROOT / "rules", rules)
    data.mkdir()
    os.chown(data, 10001, 10001)
    log = WORK / "compose-rules.log"
    settings, volumes = services["rules"]["environment"] | PORT, {rules: "/rules:ro", data: "/data"}
    check(
        sorted(volume.partition(":")[2] for volume in services["rules"]["volumes"]) == ["/data", "/rules:ro"],
        "compose mounts the rules and a volume for tokens",
    )
    with run_image(IMAGE, log, settings, volumes=volumes) as (url, _):
        [token] = re.findall(r"^ascl_\S+$", log.read_text(), re.MULTILINE)
        status, answer = request(f"{url}/v1/consult", QUESTION, token)
        check(status == 200 and answer["verdict"] == "rules_found", "the first start prints a working token")
        check_edit(url, token, rules, answer["rulebook"]["digest"])
        check_gateway(services["gateway"], f"{url}/mcp", token)
    check((data / "audit.jsonl").stat().st_size > 0, "the audit log is on the volume")


def read_compose() -> dict[str, Any]:
    """Returns docker-compose.yml with the default of every variable."""
    text = (ROOT / "docker-compose.yml").read_text()
    compose: dict[str, Any] = yaml.safe_load(re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text))
    return compose


def check_edit(url: str, token: str, rules: Path, digest: str) -> None:
    """Edits a mounted rule, and waits until the service serves the edit."""
    rule = next((rules / "cyber").glob("*.md"))
    rule.write_text(rule.read_text() + "\nReport what you find to the owner.\n")
    start = time.monotonic()
    while request(f"{url}/v1/rulebook", None, token)[1]["digest"] == digest:
        if time.monotonic() - start > 60:
            raise SystemExit("container-check: failed: an edited rule is served within a minute")
        time.sleep(0.2)
    report(f"ok: an edited rule is served {time.monotonic() - start:.1f} s after the edit")


def check_gateway(service: Mapping[str, Any], rules_url: str, token: str) -> None:
    """Sends a chat request through the gateway to a scripted model that consults the rules."""
    from tests.fakes.endpoints.scripted import ScriptedEndpoint, call

    with ScriptedEndpoint([call(QUESTION["situation"]), "Here is how to scan your own disk."]) as model:
        replaced = {"--upstream": model.base_url, "--rules-url": rules_url}
        arguments = ["--port={port}"]
        for word in service["command"]:
            flag = word.partition("=")[0]
            arguments.append(f"{flag}={replaced[flag]}" if flag in replaced else word)
        variables = {"ASCL_RULES_TOKEN": token}
        log = WORK / "compose-gateway.log"
        gateway = run_image(GATEWAY_IMAGE, log, variables, volumes={}, arguments=arguments, ready="/healthz")
        with gateway as (url, root):
            body = {"model": "scripted", "messages": [{"role": "user", "content": "Is my disk clean?"}]}
            status, answer = request(f"{url}/v1/chat/completions", body)
            text = answer["choices"][0]["message"]["content"] if status == 200 else log.read_text()
            check(text.startswith("Here is how"), "the gateway answers after a consultation")
            tools = [message for message in model.requests[-1]["messages"] if message["role"] == "tool"]
            check(len(tools) == 1 and "error" not in tools[0]["content"][:20], "the model read the rules")
            check(not list(root.glob("gateway/lib/python3*/site-packages/torch")), "it has no torch")
            report(f"size of the gateway's image: {size(root)}")


if __name__ == "__main__":
    main()
