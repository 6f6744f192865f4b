"""The import directions of the parts, and what must stay cheap to import."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PARTS = {"rule_server", "agent", "evaluation", "trainer"}
MAY_IMPORT = {
    "rule_server": set(),
    "agent": set(),
    "evaluation": {"agent"},
    "trainer": {"agent", "evaluation"},
}
HEAVY = {
    *("torch", "transformers", "trl", "faiss", "onnxruntime"),
    *("openai", "mcp", "matplotlib", "datasets", "pyarrow", "inspect_ai"),
}
COMMANDS = {
    "ascl-rules": "rule_server",
    "ascl-agent": "agent",
    "ascl-eval": "evaluation",
    "ascl-train": "trainer",
}


def imported_names(file: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("part", sorted(PARTS))
def test_a_part_imports_only_the_parts_it_may(part: str) -> None:
    files = sorted((ROOT / part).rglob("*.py"))
    assert files
    for file in files:
        forbidden = (imported_names(file) & PARTS) - MAY_IMPORT[part] - {part}
        assert not forbidden, f"{file.relative_to(ROOT)} imports {sorted(forbidden)}"


@pytest.mark.parametrize("part", sorted(PARTS))
def test_no_module_shadows_a_library_it_sits_beside(part: str) -> None:
    assert not {"http.py", "mcp.py"} & {file.name for file in (ROOT / part).rglob("*.py")}


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_the_command_line_answers_help_without_a_heavy_import(command: str) -> None:
    code = (
        "import sys\n"
        f"from {COMMANDS[command]}.cli import app\n"
        "from typer.testing import CliRunner\n"
        "result = CliRunner().invoke(app, ['--help'])\n"
        "assert result.exit_code == 0, result.output\n"
        f"print(sorted(set({sorted(HEAVY)!r}) & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
