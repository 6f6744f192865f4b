"""A log that the model's chat template cannot be trained on is refused before any weights are loaded."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from agent.episode import Episode
from tests.fakes.episodes.log import make_episode
from tests.fakes.models.templates import build_tokenizer
from tests.fakes.models.tiny_llama import save_tiny_llama, tiny_tokenizer
from tests.trainer.stages.logged.test_stage import FAST, REFUSAL, episodes, grouped, run

PLAIN = "{% for m in messages %}{{ m.role }}: {{ m.content }}<|im_end|>{% endfor %}"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder without weights, so that a run which reads them fails otherwise."""
    folder = save_tiny_llama(tmp_path_factory.mktemp("tiny"))
    (folder / "model.safetensors").unlink()
    return folder


def with_template(model: Path, folder: Path, template: str | None) -> Path:
    copy = Path(shutil.copytree(model, folder))
    (copy / "chat_template.jinja").unlink()
    if template is not None:
        (copy / "chat_template.jinja").write_text(template, encoding="utf-8")
    return copy


def with_ids(logged: list[Episode], tokenizer: Any) -> list[Episode]:
    """Adds the token ids of direct episodes, as a server with this tokenizer returns them."""
    result = []
    for episode in logged:
        prompt = tokenizer.apply_chat_template(
            episode.messages[:-1], add_generation_prompt=True, return_dict=False
        )
        reply = tokenizer.encode(episode.messages[-1]["content"])
        turn = episode.turns[0].model_copy(
            update={"prompt_token_ids": prompt, "token_ids": reply, "logprobs": [-1.0] * len(reply)}
        )
        result.append(episode.model_copy(update={"turns": [turn]}))
    return result


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (PLAIN, "its chat template does not support tool calls (its template leaves out calls)"),
        (None, "it has no chat template: use an instruction-tuned model"),
        ("{% if %}", "its chat template does not support tool calls (its template cannot render"),
    ],
)
def test_a_template_that_cannot_show_the_calls_of_a_text_log_is_refused(
    template: str | None, message: str, model: Path, tmp_path: Path
) -> None:
    folder = with_template(model, tmp_path / "model", template)
    groups, out = grouped(tmp_path, episodes()), tmp_path / "out"
    code, stdout, stderr = run("logged", "--model", folder, "--groups", groups, "--out", out, *FAST)
    assert (code, stdout) == (1, "")
    assert f"cannot be trained on {groups}: {message}" in stderr
    assert "Traceback" not in stderr
    assert not out.exists()


def test_token_ids_that_another_template_sampled_are_refused(model: Path, tmp_path: Path) -> None:
    other = tiny_tokenizer()
    other.chat_template = (
        "{% for m in messages %}[{{ m.role }}] {{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}[reply] {% endif %}"
    )
    direct = [episode for episode in episodes() if episode.mode == "direct"]
    worse = make_episode("a", "benign_plain", REFUSAL, sample=9)
    groups = grouped(tmp_path, with_ids([*direct, worse], other))
    code, _, stderr = run("logged", "--model", model, "--groups", groups, "--out", tmp_path / "out", *FAST)
    assert code == 1
    assert "its chat template asks for a reply with '<|im_start|>assistant\\n'" in stderr
    assert "[reply] ', so another template sampled them" in stderr
    assert "save the server's template in its folder" in stderr


@pytest.mark.parametrize("thinking", [True, False])
def test_token_ids_of_the_same_template_with_other_options_are_accepted(thinking: bool) -> None:
    from trainer.models.log_template import log_template_problem

    tokenizer = build_tokenizer("qwen3")
    episode = next(episode for episode in episodes() if episode.mode == "direct")
    prompt = tokenizer.apply_chat_template(
        episode.messages[:-1], add_generation_prompt=True, return_dict=False, enable_thinking=thinking
    )
    columns = {
        "messages": [episode.model_dump_json(include={"messages"})[len('{"messages":') : -1]],
        "tools": ["[]"],
        "turns": [f'[{{"prompt_token_ids": {prompt}, "token_ids": [5]}}]'],
        "mode": ["direct"],
        "forced": [False],
    }
    assert log_template_problem(tokenizer, columns, lambda _: {}) is None
    tokenizer.chat_template = tokenizer.chat_template.replace("<|im_start|>assistant", "<|reply|>")
    assert "another template sampled them" in str(log_template_problem(tokenizer, columns, lambda _: {}))
