"""The command line: output, errors and exit codes."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import pytest

from agent.episode import read_log
from agent.errors import PromptError
from tests.fakes.endpoints.responses import message_item, response_with
from tests.fakes.endpoints.scripted import ScriptedEndpoint, call
from tests.fakes.episodes.agent_run import CLOSED_URL
from tests.fakes.processes import preloaded
from tests.fakes.rules.scripted import ScriptedRules

ROOT = Path(__file__).resolve().parents[3]
ENDPOINT = ["--base-url", f"{CLOSED_URL}/v1", "--model", "m", "--rules-url", f"{CLOSED_URL}/mcp"]

NO_RULES = ["--upstream", "http://u/v1", "--rules-url", "none"]


def cli(*arguments: str | Path, input: str = "", **more: str) -> subprocess.CompletedProcess[str]:
    known = {"OPENAI_BASE_URL", "OPENAI_API_KEY", "ASCL_MODEL", "ASCL_RULES_URL", "ASCL_RULES_TOKEN"}
    env = {name: value for name, value in os.environ.items() if name not in known}
    return preloaded.run(
        "agent.cli",
        *arguments,
        environment={**env, "COLUMNS": "160", **more},
        input=input,
        timeout=60,
    )


def services(endpoint: ScriptedEndpoint, rules: ScriptedRules) -> list[str]:
    return ["--base-url", endpoint.base_url, "--model", "scripted", "--rules-url", rules.url]


@pytest.fixture
def log(rules: ScriptedRules, tmp_path: Path) -> Path:
    """A log of three episodes, two of which consulted."""
    prompts, path = tmp_path / "prompts.jsonl", tmp_path / "log.jsonl"
    lines = [{"id": f"p{n}", "prompt": f"Question {n}?", "kind": "harmful"} for n in range(3)]
    prompts.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    script = [call("a"), "No [bold].", call("b"), "No.", "Yes."]
    with ScriptedEndpoint(script) as endpoint:
        result = cli(
            "run", "--prompts", prompts, "--log", path, *services(endpoint, rules), "--concurrency", "1"
        )
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(f"{path}: 3 episodes: 2 consult, 1 direct")
    return path


def test_chat_writes_the_answer_to_standard_output_and_all_else_to_standard_error(
    rules: ScriptedRules, tmp_path: Path
) -> None:
    script = [{**call("someone asks about guns"), "reasoning": "Delicate?"}, "I cannot help with that."]
    with ScriptedEndpoint(script) as endpoint:
        result = cli("chat", "How?", *services(endpoint, rules), "--log", tmp_path / "log.jsonl")
    assert result.returncode == 0, result.stderr
    assert result.stdout == "I cannot help with that.\n"
    assert "thinks: Delicate?\n" in result.stderr
    assert "someone asks about guns" in result.stderr
    assert "weapons.making (decline)" in result.stderr
    assert endpoint.requests[0]["stream"] is True
    assert [e.answer for e in read_log(tmp_path / "log.jsonl").episodes] == ["I cannot help with that."]


def test_chat_does_not_show_a_call_that_came_as_text(rules: ScriptedRules) -> None:
    text = '<tool_call>{"name": "consult_safety_rules", "arguments": {"situation": "gun"}}</tool_call>'
    with ScriptedEndpoint([text, "No <tool> for that."]) as endpoint:
        result = cli("chat", "How?", *services(endpoint, rules))
    assert result.stdout == "No <tool> for that.\n"


def test_chat_reads_the_prompt_from_a_pipe(rules: ScriptedRules) -> None:
    with ScriptedEndpoint(["4"]) as endpoint:
        result = cli("chat", *services(endpoint, rules), input="What is\n2 + 2?\n")
    assert result.stdout == "4\n"
    assert endpoint.requests[0]["messages"][-1]["content"] == "What is\n2 + 2?\n"


def test_chat_warns_and_continues_without_a_rule_service() -> None:
    with ScriptedEndpoint(["4"]) as endpoint:
        result = cli(
            *(
                "chat",
                "2 + 2?",
                "--base-url",
                endpoint.base_url,
                "--model",
                "m",
                "--rules-url",
                f"{CLOSED_URL}/mcp",
            )
        )
    assert (result.returncode, result.stdout) == (0, "4\n")
    assert "ascl-rules serve" in result.stderr
    assert "tools" not in endpoint.requests[0]


def test_chat_without_an_answer_ends_with_code_1(rules: ScriptedRules) -> None:
    with ScriptedEndpoint() as endpoint:
        result = cli("chat", "Hi", *services(endpoint, rules))
    assert (result.returncode, result.stdout) == (1, "")
    assert "no further answer" in result.stderr
    assert "Traceback" not in result.stderr


def test_run_without_a_rule_service_ends_with_one_sentence(tmp_path: Path) -> None:
    prompts = tmp_path / "p.jsonl"
    prompts.write_text('{"id": "a", "prompt": "Hi"}\n', encoding="utf-8")
    with ScriptedEndpoint() as endpoint:
        result = cli(
            *("run", "--prompts", prompts, "--log", tmp_path / "log.jsonl"),
            *("--base-url", endpoint.base_url, "--model", "m", "--rules-url", f"{CLOSED_URL}/mcp"),
        )
    assert result.returncode == 1
    assert result.stderr.startswith("ascl-agent: the rule service at")
    assert result.stderr.count("\n") == 1


def test_run_prints_its_figures_as_json(rules: ScriptedRules, tmp_path: Path) -> None:
    prompts = tmp_path / "p.jsonl"
    prompts.write_text('{"id": "a", "prompt": "Hi"}\n', encoding="utf-8")
    with ScriptedEndpoint(otherwise="Hello") as endpoint:
        result = cli(
            *("run", "--prompts", prompts, "--log", tmp_path / "log.jsonl", "--samples", "2", "--json"),
            *services(endpoint, rules),
        )
    figures = json.loads(result.stdout)
    assert (figures["episodes"], figures["modes"], figures["stop_reasons"]) == (
        2,
        {"direct": 2},
        {"answer": 2},
    )


@pytest.mark.parametrize("api", ["chat", "responses"])
def test_template_options_are_sent_and_stored_with_the_episode(
    api: str, rules: ScriptedRules, tmp_path: Path
) -> None:
    prompts, log = tmp_path / "prompts.jsonl", tmp_path / "log.jsonl"
    prompts.write_text('{"id": "a", "prompt": "Hello?"}\n', encoding="utf-8")
    options = {"enable_thinking": False, "date_string": "1 May", "effort": "low"}
    flags = ["enable_thinking=false", 'date_string="1 May"', "effort=low"]
    answer = "Hello." if api == "chat" else response_with(message_item("Hello."))
    with ScriptedEndpoint([answer], accepts=["chat_template_kwargs"]) as endpoint:
        result = cli(
            *("run", "--prompts", prompts, "--log", log, *services(endpoint, rules), "--api", api),
            *(word for flag in flags for word in ("--template-option", flag)),
        )
    assert result.returncode == 0, result.stderr
    assert endpoint.requests[0]["chat_template_kwargs"] == options
    assert "extra_body" not in endpoint.requests[0]
    assert read_log(log).episodes[0].sampling_sent["chat_template_kwargs"] == options


@pytest.mark.parametrize("option", ["enable_thinking", "=false"])
def test_a_template_option_without_a_value_is_refused(option: str, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"id": "a", "prompt": "Hello?"}\n', encoding="utf-8")
    result = cli(
        "run", "--prompts", prompts, "--log", tmp_path / "log", *ENDPOINT, "--template-option", option
    )
    assert result.returncode == 2
    assert f"--template-option {option}: expected KEY=VALUE" in result.stderr


@pytest.mark.parametrize(
    ("content", "output"),
    [
        ("", "contains no prompts"),
        ("{}\n", "line 1 of .* has no text of the user: give `prompt`"),
        ('{"id": "a", "prompt": "x"}\n{"id": "a", "prompt": "y"}\n', "line 2 of .* repeats the id 'a'"),
        ('{"id": "a", "prompt": "x"}\nnot json\n', "line 2 of .* is not a prompt"),
    ],
)
def test_invalid_prompts_are_reported_with_their_line(tmp_path: Path, content: str, output: str) -> None:
    from agent.rollout import read_prompts

    path = tmp_path / "p.jsonl"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(PromptError, match=output):
        read_prompts(path)


def test_a_prompt_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    from agent.rollout import read_prompts

    path = tmp_path / "p.jsonl"
    path.write_text('{"id": "a", "prompt": "x"}\n', encoding="utf-8-sig")
    assert [prompt.id for prompt in read_prompts(path)] == ["a"]
    path.write_text("\n", encoding="utf-8-sig")
    with pytest.raises(PromptError, match="contains no prompts"):
        read_prompts(path)


def test_show_lists_a_log_and_shows_one_episode(log: Path) -> None:
    listed = cli("show", log)
    assert listed.returncode == 0
    assert listed.stdout.count("consult") == 2
    assert "No [bold]." in listed.stdout
    one = cli("show", log, "p0#0")
    assert 'calls consult_safety_rules({"situation": "a"})' in one.stdout
    assert "weapons.making (decline)" in one.stdout
    rows = json.loads(cli("show", log, "--json").stdout)
    assert [row["mode"] for row in rows] == ["consult", "consult", "direct"]
    whole = json.loads(cli("show", log, rows[0]["id"][:12], "--json").stdout)
    assert whole["prompt_id"] == "p0"
    missing = cli("show", log, "nothing")
    assert (missing.returncode, missing.stderr.count("\n")) == (1, 1)


def test_validate_reports_no_problem_for_a_valid_log(log: Path) -> None:
    result = cli("validate", log, "--json")
    assert (result.returncode, json.loads(result.stdout)["problems"]) == (0, [])
    assert json.loads(result.stdout)["episodes"] == 3


def test_validate_lists_the_problems_and_exits_with_code_1(log: Path) -> None:
    lines = log.read_text(encoding="utf-8").splitlines()
    first = json.loads(lines[0])
    first["mode"] = "direct"
    del first["messages"][3]
    log.write_text("\n".join([json.dumps(first), *lines[1:], lines[2], '{"torn']), encoding="utf-8")
    result = cli("validate", log, "--json")
    output = [problem["what"] for problem in json.loads(result.stdout)["problems"]]
    assert result.returncode == 1
    assert output == [
        "mode is direct with 1 consultations",
        "the call call_1 has no answer, or several",
        "a second episode of p2#0",
        output[3],
        "the id occurs 2 times",
    ]
    assert output[3].startswith("line 5 is not an episode: Invalid JSON")


@pytest.mark.parametrize(
    ("arguments", "code", "output"),
    [
        (["run", "--nope"], 2, "--nope"),
        (["chat", "Hi", "--tool-mode", "magic"], 2, "native"),
        (["chat", "Hi"], 2, "--base-url"),
        (["chat", "Hi", "--base-url", "http://127.0.0.1:9/v1"], 2, "--model"),
        (["chat", "Hi", "--base-url", "nowhere", "--model", "m"], 1, "not an http"),
        (["show", "/nowhere.jsonl"], 1, "cannot read /nowhere.jsonl"),
        (["validate", "/nowhere.jsonl"], 1, "cannot read /nowhere.jsonl"),
        (["run", "--prompts", "/nowhere.jsonl", "--log", "x.jsonl"], 1, "cannot read /nowhere.jsonl"),
    ],
)
def test_a_users_mistake_ends_with_one_sentence_and_a_code(
    arguments: list[str], code: int, output: str
) -> None:
    result = cli(*arguments)
    assert result.returncode == code
    assert output in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("command", ["chat", "run", "show", "validate"])
def test_every_command_explains_itself_with_an_example(command: str) -> None:
    result = cli(command, "--help")
    assert result.returncode == 0
    assert f"Example: ascl-agent {command}" in result.stdout


def test_the_gateway_prints_its_addresses_and_forwards_requests(rules: ScriptedRules) -> None:
    with ScriptedEndpoint(["4"]) as endpoint:
        command = [
            *(sys.executable, "-m", "agent.cli", "gateway", "--upstream", endpoint.base_url),
            *("--rules-url", rules.url, "--port", "0"),
        ]
        with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            output = process.stderr.readline()
            address = output.split()[1]
            body = {"model": "m", "messages": [{"role": "user", "content": "2 + 2?"}]}
            reply = httpx2.post(f"{address}/chat/completions", json=body, timeout=30)
            process.terminate()
            rest = process.communicate(timeout=30)[1]
    assert output == f"ascl-agent: {address} forwards to {endpoint.base_url}, rules from {rules.url}\n"
    assert reply.json()["choices"][0]["message"]["content"] == "4"
    assert "Traceback" not in rest


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--upstream", "http://u/v1", "--host", "0.0.0.0"], "--allow-remote"),
        (["--upstream", "u/v1"], "not an http(s) address"),
        (["--upstream", "http://me:secret@u:80a/v1"], "invalid upstream 'u:80a/v1'"),
        (["--upstream", "http://[::1/v1"], "invalid upstream"),
        (["--upstream", "http://u/v1", "--rules-url", "u/mcp"], "invalid rule service URL 'u/mcp'"),
        (
            ["--upstream", "http://u/v1", "--host", "256.1.1.1", "--allow-remote"],
            "cannot listen on 256.1.1.1",
        ),
    ],
)
def test_a_gateway_that_cannot_start_reports_the_reason_in_one_sentence(
    arguments: list[str], sentence: str
) -> None:
    result = cli("gateway", *arguments)
    assert result.returncode == 1
    assert sentence in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (["probe", "http://127.0.0.1:99999/v1"], "Port out of range"),
        (["probe", "http://[::1/v1"], "invalid base URL"),
        (
            ["chat", "Hi", "--base-url", "http://me:secret@h:80a/v1", "--model", "m"],
            "invalid base URL 'h:80a/v1'",
        ),
        (["run", "--prompts", "PROMPTS", "--log", "PROMPTS/log.jsonl", *ENDPOINT], "cannot"),
        (["gateway", *NO_RULES, "--on-rules-error", "refuse"], "--on-rules-error refuse requires the rules"),
        (["gateway", *NO_RULES, "--hint"], "omit --hint, or --rules-url none"),
        (["run", "--prompts", "PROMPTS", "--log", "l", "--call-token", "5", *ENDPOINT], "direct=0.25"),
    ],
)
def test_invalid_options_are_reported_in_one_sentence(
    command: list[str], sentence: str, tmp_path: Path
) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"id": "a", "prompt": "Hi"}\n', encoding="utf-8")
    result = cli(*(word.replace("PROMPTS", str(prompts)) for word in command))
    assert result.returncode in (1, 2)
    assert sentence in result.stderr
    assert (result.stderr.count("\n"), "secret" in result.stderr) == (1, False)


@pytest.mark.parametrize("name", ["OPENAI_API_KEY", "ASCL_RULES_TOKEN"])
def test_an_invalid_key_is_reported_without_its_text(name: str) -> None:
    result = cli("chat", "Hi", *ENDPOINT, **{name: "sk-half\nsk-other-half"})
    assert result.returncode == 1
    assert name in result.stderr
    assert "half" not in result.stderr


def test_one_ctrl_c_at_the_prompt_of_a_conversation_ends_it(rules: ScriptedRules) -> None:
    with ScriptedEndpoint([]) as endpoint:
        terminal, end = os.openpty()
        chat = subprocess.Popen(
            [sys.executable, "-m", "agent.cli", "chat", *services(endpoint, rules)],
            cwd=ROOT,
            stdin=end,
            stdout=end,
            stderr=end,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        os.close(end)
        try:
            shown = b""
            while b"> " not in shown:
                shown += os.read(terminal, 1024)
            time.sleep(1)  # the prompt appears shortly before the read starts
            chat.send_signal(signal.SIGINT)
            assert chat.wait(30) == 130
            with contextlib.suppress(OSError):  # the other end is closed
                while chunk := os.read(terminal, 1024):
                    shown += chunk
        finally:
            chat.kill()
            os.close(terminal)
    assert b"interrupted" in shown
    assert b"Traceback" not in shown
