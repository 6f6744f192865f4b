"""Import directions between and inside the packages, sizes of folders, and cheap imports for `--help`."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("rule_server", "agent", "evaluation", "trainer")
MAY_IMPORT = {
    "rule_server": set(),
    "agent": set(),
    "evaluation": {"agent"},
    "trainer": {"agent", "evaluation"},
}
"""Package -> the other packages that it may import."""
ORDER = {
    "rule_server": [
        ["errors"],
        ["settings"],
        ["rulebook"],
        ["schemas", "retrieval"],
        ["observability"],
        ["service"],
        ["authoring", "api"],
        ["cli"],
    ],
    "agent": [
        ["errors", "urls"],
        ["episode", "replies"],
        ["endpoint"],
        ["tools", "export"],
        ["rollout", "gateway"],
        ["cli"],
    ],
    "agent.gateway": [
        ["settings", "metrics", "rule_offer"],
        ["wire"],
        ["exchange"],
        ["protocols", "idempotency", "episode_log"],
        ["app"],
    ],
    "evaluation": [
        ["errors"],
        ["runtime"],
        ["prompts", "scorers"],
        ["metrics", "sampling"],
        ["reports", "rule_edit"],
        ["cli"],
    ],
    "trainer": [
        ["errors", "ifpo", "tokens"],
        ["groups", "models"],
        ["stages"],
        ["orchestration", "reports"],
        ["cli"],
    ],
    "trainer.stages": [
        ["config", "checkpoints", "run_record", "monitoring"],
        ["model_io", "ifpo_trainer"],
        ["sft", "logged", "online"],
    ],
}
"""Package -> its members in import order: a line may import only the lines above it."""
MAX_TOP_ENTRIES = 10
MAX_ENTRIES = 9
MAY_HOLD_ONE_MODULE = {
    "rule_server.api.page",
    "rule_server.retrieval.background",
    "agent.rollout.system_prompt",
    "trainer.models",
}
"""Folders that hold data beside a single module."""
MAX_LINES = 400
MAX_FUNCTION_LINES = 60
HEAVY = {
    *("torch", "transformers", "trl", "faiss", "onnxruntime"),
    *("openai", "mcp", "matplotlib", "datasets", "pyarrow", "inspect_ai", "scipy"),
}
COMMANDS = {
    "ascl-rules": "rule_server",
    "ascl-agent": "agent",
    "ascl-eval": "evaluation",
    "ascl-train": "trainer",
}
Imports = dict[str, set[str]]
"""Module -> the modules of the same tree that it imports."""


def module_of(file: Path, root: Path) -> str:
    parts = file.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(root: Path, package: str) -> Imports:
    """Returns the dotted names that each module imports, nested and type-checking imports included."""
    found: Imports = {}
    for file in sorted((root / package).rglob("*.py")):
        names: set[str] = set()
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                parents = file.relative_to(root).parent.parts
                base = parents[: len(parents) + 1 - node.level] if node.level else ()
                source = ".".join((*base, *([node.module] if node.module else [])))
                names |= {f"{source}.{alias.name}" for alias in node.names}
        found[module_of(file, root)] = names
    return found


def place_of(name: str, package: str) -> str | None:
    """Returns the direct member of `package` that contains a dotted name; None for a name outside it."""
    inside = name.startswith(f"{package}.")
    return name.removeprefix(f"{package}.").partition(".")[0] if inside else None


def order_violations(imports: Imports, package: str, lines: list[list[str]]) -> list[str]:
    """Returns imports that violate the order of a package, and members that the order does not list."""
    rank = {member: at for at, line in enumerate(lines) for member in line}
    found = []
    for module, names in imports.items():
        if (source := place_of(module, package)) is None:
            continue
        if source not in rank:
            found.append(f"{module}: {source} has no place in the order of {package}")
            continue
        for name in sorted(names):
            target = place_of(name, package)
            if target in rank and target != source and rank[target] >= rank[source]:
                found.append(f"{module} imports {name}")
    return found


def circles(imports: Imports, package: str) -> list[list[str]]:
    """Returns import circles among the direct members of a package, each as a sorted list of members."""
    graph: dict[str, set[str]] = {}
    for module, names in imports.items():
        if (source := place_of(module, package)) is None:
            continue
        targets = {place_of(name, package) for name in names} - {None, source}
        graph.setdefault(source, set()).update(target for target in targets if target)

    def reachable(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = [start]
        while waiting:
            fresh = graph.get(waiting.pop(), set()) - seen
            seen |= fresh
            waiting += fresh
        return seen

    reach = {member: reachable(member) for member in graph}
    together = {
        frozenset(other for other in graph if other in reach[member] and member in reach[other])
        for member in graph
        if member in reach[member]
    }
    return sorted(sorted(circle) for circle in together)


def imports_of_own_package(imports: Imports) -> list[str]:
    """Returns imports of a name from the `__init__` of a package that contains the importing module.

    Such an import may run while that `__init__` is still being imported, and then fails.
    """
    found = []
    for module, names in imports.items():
        parts = module.split(".")
        if parts[-1] == "__main__":  # it runs after its package was imported
            continue
        packages = {".".join(parts[:end]) for end in range(1, len(parts))}
        for name in sorted(names):
            if name in packages or (name.rpartition(".")[0] in packages and name not in imports):
                found.append(f"{module} imports {name}")
    return found


def entries(folder: Path) -> list[str]:
    """Lists the modules and sub-packages of a folder, without `__init__`, `__main__` and data."""
    modules = {file.stem for file in folder.glob("*.py")} - {"__init__", "__main__"}
    return sorted(modules | {child.name for child in folder.iterdir() if any(child.glob("**/*.py"))})


def packages_below(folder: Path) -> Iterator[Path]:
    for file in sorted(folder.rglob("__init__.py")):
        yield file.parent


@pytest.fixture(scope="module")
def imports() -> Imports:
    return {module: names for package in PACKAGES for module, names in imports_of(ROOT, package).items()}


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_only_the_packages_it_may(package: str, imports: Imports) -> None:
    own = {module: names for module, names in imports.items() if module.partition(".")[0] == package}
    assert len(own) > 20
    for module, names in own.items():
        others = {name.partition(".")[0] for name in names} & set(PACKAGES) - MAY_IMPORT[package] - {package}
        assert not others, f"{module} imports {sorted(others)}"


@pytest.mark.parametrize("package", sorted(ORDER))
def test_imports_inside_a_package_follow_its_order(package: str, imports: Imports) -> None:
    assert order_violations(imports, package, ORDER[package]) == []


def test_there_is_no_import_circle_at_any_folder_level(imports: Imports) -> None:
    for name in PACKAGES:
        for folder in packages_below(ROOT / name):
            package = module_of(folder / "__init__.py", ROOT)
            assert circles(imports, package) == [], package


def test_no_module_imports_from_the_init_of_its_own_package(imports: Imports) -> None:
    assert imports_of_own_package(imports) == []


@pytest.mark.parametrize("name", PACKAGES)
def test_a_folder_holds_few_entries_and_more_than_one(name: str) -> None:
    for folder in packages_below(ROOT / name):
        package = module_of(folder / "__init__.py", ROOT)
        held = entries(folder)
        assert len(held) <= (MAX_TOP_ENTRIES if package == name else MAX_ENTRIES), f"{package}: {held}"
        if package not in MAY_HOLD_ONE_MODULE:
            assert len(held) > 1, f"{package} holds one module only: {held}"


def test_a_planted_violation_is_found(tmp_path: Path) -> None:
    files = {
        "house/__init__.py": "",
        "house/low.py": "def late() -> None:\n    from house.high import roof\n",
        "house/high/__init__.py": "from house.low import late\n",
        "house/high/roof.py": "from house.high.wall import brick\n",
        "house/high/wall.py": "if TYPE_CHECKING:\n    from house.high import roof\n",
        "house/high/door.py": "from . import lock\nfrom ..low import late\n",
        "house/high/__main__.py": "from house.high import late\n",
        "house/attic.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    found = imports_of(tmp_path, "house")
    assert order_violations(found, "house", [["low"], ["high"]]) == [
        "house.attic: attic has no place in the order of house",
        "house.low imports house.high.roof",
    ]
    assert circles(found, "house") == [["high", "low"]]
    assert circles(found, "house.high") == [["roof", "wall"]]
    assert found["house.high.door"] == {"house.high.lock", "house.low.late"}
    assert imports_of_own_package(found) == ["house.high.door imports house.high.lock"]
    assert entries(tmp_path / "house") == ["attic", "high", "low"]
    assert entries(tmp_path / "house" / "high") == ["door", "roof", "wall"]


def test_functions_and_files_are_short_or_say_why_not() -> None:
    for folder in (*PACKAGES, "benchmarks", "demo", "deploy"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            text = file.read_text(encoding="utf-8")
            assert text.count("\n") <= MAX_LINES, f"{file.relative_to(ROOT)} has {text.count(chr(10))} lines"
            if folder == "benchmarks":
                continue
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno:
                    length = node.end_lineno - node.lineno + 1
                    said = "Long because" in (ast.get_docstring(node) or "")
                    assert length <= MAX_FUNCTION_LINES or said, f"{file.name}:{node.name} has {length} lines"


@pytest.mark.parametrize("name", PACKAGES)
def test_every_sub_package_says_what_it_is_for(name: str) -> None:
    for folder in packages_below(ROOT / name):
        text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8")))
        assert text, folder.relative_to(ROOT)


@pytest.mark.parametrize("package", PACKAGES)
def test_no_module_shadows_a_library_it_sits_beside(package: str) -> None:
    assert not {"http.py", "mcp.py"} & {file.name for file in (ROOT / package).rglob("*.py")}


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_the_command_line_answers_help_without_a_heavy_import(command: str) -> None:
    code = (
        "import sys\n"
        f"from {COMMANDS[command]}.cli.app import app\n"
        "from typer.testing import CliRunner\n"
        "result = CliRunner().invoke(app, ['--help'])\n"
        "assert result.exit_code == 0, result.output\n"
        f"print(sorted(set({sorted(HEAVY)!r}) & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
