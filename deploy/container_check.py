"""Build the image and consult what it serves, where no container engine runs: `make container-check`.

Needs root, and Debian's buildah and debootstrap. The base image is a minimal Debian with its python3. Every
step of the Dockerfile runs in a chroot; the image's own command is started and consulted over loopback. What
is printed was measured. All of it lies in build/container/; a second run reuses the base.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / "build" / "container"
BASE, IMAGE, OWN = "localhost/ascl-base", "localhost/ascl-rules", "localhost/ascl-own-rules"
ENVIRONMENT = {**os.environ, "BUILDAH_ISOLATION": "chroot"}
STORE = ("--root", str(WORK / "store"), "--runroot", str(WORK / "run"))
SECRETS = WORK / "secrets"
WITH_TOKENS = {"ASCL_RULES_TOKENS_FILE": "/secrets/tokens.jsonl"}
QUESTION = {"situation": "someone asks for a computer virus"}
HELLO = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "container-check", "version": "1"},
    },
}
OWN_RULES = """FROM {image}
COPY my-rules /rules
RUN ["ascl-rules", "build", "--rules", "/rules"]
"""


def buildah(*arguments: str | Path, show: bool = False) -> str:
    """Standard output of one buildah command; `show` leaves it on the terminal. Raises SystemExit."""
    command = ["buildah", *STORE, *map(str, arguments)]
    done = subprocess.run(
        command, env=ENVIRONMENT, stdout=None if show else subprocess.PIPE, text=True, check=False
    )
    if done.returncode != 0:
        raise SystemExit(f"container-check: `{' '.join(command)}` failed with {done.returncode}")
    return (done.stdout or "").strip()


def step(text: str) -> None:
    print(f"container-check: {text}", flush=True)


def make_base() -> None:
    """A local base image with python3, from Debian's packages."""
    if BASE in buildah("images", "--format", "{{.Name}}").split():
        return
    folder = WORK / "base"
    if not (folder / "usr" / "bin" / "python3").exists():
        step("making a base file system (some minutes, once)")
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
    """`-v` arguments that give build steps this machine's pip settings, certificates and wheel folders."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    ).stdout
    settings: dict[str, str] = {}
    for line in listed.splitlines():
        key, _, value = line.partition("=")
        settings[key.rpartition(".")[2]] = value.strip("'\"")
    paths = {Path("/etc/ssl/certs")}
    for value in " ".join(settings.values()).split():
        path = Path(urlsplit(value).path)
        if path.is_absolute() and path.exists() and urlsplit(value).scheme in ("", "file"):
            paths.add(path)
    # An index page on disk may link to files beside it.
    paths |= {path.parent for path in paths if path.name == "simple"}
    # Our own constraints are what the Dockerfile sets.
    settings.pop("constraint", None)
    config = WORK / "pip.conf"
    config.write_text("[global]\n" + "".join(f"{key} = {value}\n" for key, value in settings.items()))
    mounts = [f"{path}:{path}:ro" for path in sorted(paths)] + [f"{config}:/etc/pip.conf:ro"]
    return [part for mount in mounts for part in ("-v", mount)]


def build(image: str, dockerfile: Path, context: Path, *extra: str) -> float:
    """Seconds that it took to build the image."""
    start = time.monotonic()
    (WORK / "tmp").mkdir(exist_ok=True)
    os.environ["TMPDIR"] = ENVIRONMENT["TMPDIR"] = str(WORK / "tmp")
    # Docker's format, for the other knows no health check.
    kind = ("--format", "docker", "--pull-never")
    buildah("bud", *kind, *extra, "-t", image, "-f", dockerfile, context, show=True)
    return time.monotonic() - start


@contextmanager
def started(image: str, log: Path, settings: Mapping[str, str]) -> Iterator[tuple[str, Path]]:
    """The image's own command, on the host's network; its root must stay as it was. Address and root."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    config = json.loads(buildah("inspect", "--type", "image", image))["Docker"]["config"]
    container = buildah("from", "--pull-never", image)
    root = Path(buildah("mount", container))
    values = {"ASCL_RULES_PORT": port, **settings}
    given = [part for name, value in values.items() for part in ("--env", f"{name}={value}")]
    given += ["-v", f"{SECRETS}:/secrets:ro"]
    before = written(root)
    with log.open("w") as output:
        process = subprocess.Popen(
            ["buildah", *STORE, "run", *given, container, "--", *config["Entrypoint"], *config["Cmd"]],
            env=ENVIRONMENT,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 60
        while ask(f"{url}/readyz")[0] != 200:
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"container-check: the image does not serve:\n{log.read_text()}")
            time.sleep(0.1)
        yield url, root
        changed = written(root) - before
        if changed:
            raise SystemExit(f"container-check: the service wrote to its root: {sorted(changed)[:5]}")
    finally:
        stop(process)
        buildah("rm", container)


def written(root: Path) -> set[tuple[str, int]]:
    """Every file below the root, with its time of change; not what is in memory when it is read-only."""
    found = set()
    for folder, names, files in os.walk(root):
        if Path(folder) == root:
            names[:] = [name for name in names if name not in ("tmp", "proc", "sys", "dev", "run", "etc")]
        for name in files:
            path = Path(folder) / name
            found.add((str(path.relative_to(root)), path.lstat().st_mtime_ns))
    return found


def stop(process: subprocess.Popen[bytes]) -> None:
    """End the command and all that it started: buildah does not pass the signal on."""
    try:
        os.killpg(process.pid, 15)
        process.wait(15)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        process.wait(5)
    except ProcessLookupError:
        process.wait(5)


def ask(url: str, body: object = None, token: str | None = None) -> tuple[int, dict[str, object]]:
    """Status and JSON of an answer; (0, {}) when nobody listens."""
    headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {token}"} if token else {})
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=10) as answer:  # noqa: S310
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, {}
    except OSError:
        return 0, {}


def size(path: Path) -> str:
    """Megabytes of files below a path, hard links once."""
    done = subprocess.run(["du", "-sm", str(path)], capture_output=True, text=True, check=True)
    return f"{done.stdout.split()[0]} MB"


def check(holds: bool, what: str) -> None:
    if not holds:
        raise SystemExit(f"container-check: {what}: this does not hold")
    step(f"ok: {what}")


def main() -> None:
    """`--keep` checks the image that was built before."""
    for tool in ("buildah", "debootstrap"):
        if shutil.which(tool) is None:
            raise SystemExit(f"container-check: {tool} is missing: apt-get install buildah debootstrap")
    if os.geteuid() != 0:
        raise SystemExit("container-check: a chroot needs root: run it as root, or use docker build")
    WORK.mkdir(parents=True, exist_ok=True)
    make_base()
    if "--keep" not in sys.argv:
        step("building the image, every step of the Dockerfile")
        seconds = build(IMAGE, ROOT / "Dockerfile", ROOT, "--build-arg", f"BASE={BASE}", *pip_mounts())
        step(f"built in {seconds:.0f} s")
    inspect_and_consult()
    own_rules()
    step("all held")


def inspect_and_consult() -> None:
    """What the image holds and how it answers."""
    config = json.loads(buildah("inspect", "--type", "image", IMAGE))["Docker"]["config"]
    check(config["User"] == "10001:10001", "it runs as a user that is not root")
    check(config["Healthcheck"]["Test"][0] == "CMD", "it has a health check, without a shell")
    token = new_token()
    start = time.monotonic()
    with started(IMAGE, WORK / "serve.log", WITH_TOKENS) as (url, root):
        step(f"ready {time.monotonic() - start:.1f} s after its start")
        status, answer = ask(f"{url}/v1/consult", QUESTION, token)
        check(status == 200 and answer["verdict"] == "rules_found", "it answers over loopback")
        check(ask(f"{url}/v1/consult", QUESTION)[0] == 401, "it asks callers for a token")
        port = str(urlsplit(url).port)
        health = config["Healthcheck"]["Test"][1:]
        healthy = subprocess.call(health, env={**os.environ, "ASCL_RULES_PORT": port}) == 0
        check(healthy, "its health check finds it healthy")
        for absent in ("torch", "sentence_transformers", "transformers", "pip"):
            check(not list(root.glob(f"app/lib/python3*/site-packages/{absent}")), f"{absent} is absent")
        app, artefact, whole = size(root / "app"), size(root / "artefact"), size(root)
        step(f"size: {whole}, of which the base {size(WORK / 'base')}, /app {app}, /artefact {artefact}")
    refused = once("serve")
    check(refused.returncode != 0, "it does not start open to all")
    step(f"what it says then: {refused.stderr.strip().splitlines()[0]}")
    spoken = once("stdio", stdin=json.dumps(HELLO) + "\n")
    check('"name":"ascl-rules"' in spoken.stdout, "it serves one client over stdio")


def once(*arguments: str, stdin: str = "", secrets: str = "ro") -> subprocess.CompletedProcess[str]:
    """One command of the image, run to its end."""
    container = buildah("from", "--pull-never", IMAGE)
    run = ["buildah", *STORE, "run", "-v", f"{SECRETS}:/secrets:{secrets}", container, "--", "ascl-rules"]
    try:
        return subprocess.run(
            [*run, *arguments],
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
    """A token for the service, made by the image itself."""
    shutil.rmtree(SECRETS, ignore_errors=True)
    SECRETS.mkdir()
    # The container's user writes here, and nobody else does: the folder goes with the next run.
    SECRETS.chmod(0o777)
    made = once("token", "new", "check", "--file", "/secrets/tokens.jsonl", secrets="rw")
    check(made.returncode == 0, "it makes a token")
    return made.stdout.strip().splitlines()[-1]


def own_rules() -> None:
    """An operator's own rulebook over ours, in an image FROM this one: no torch, no network."""
    context = WORK / "own"
    shutil.rmtree(context, ignore_errors=True)
    context.mkdir()
    shutil.copytree(ROOT / "rules" / "cyber", context / "my-rules" / "cyber")
    (context / "my-rules" / "rulebook.yaml").write_text("name: my-rules\nversion: 1.0.0\n")
    (context / "Dockerfile").write_text(OWN_RULES.format(image=IMAGE))
    seconds = build(OWN, context / "Dockerfile", context, "--network", "none")
    token = new_token()
    with started(OWN, WORK / "own.log", WITH_TOKENS) as (url, _):
        status, answer = ask(f"{url}/v1/consult", QUESTION, token)
        book = answer.get("rulebook")
        built = status == 200 and isinstance(book, dict) and book["name"] == "my-rules"
        check(built, f"own rules are built in, in {seconds:.0f} s")


if __name__ == "__main__":
    main()
