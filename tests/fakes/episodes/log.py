"""Builds episodes and logs without running the agent."""

import json
from pathlib import Path
from typing import Any

from agent.episode import Episode


def make_episode(
    prompt_id: str = "p1",
    kind: str = "benign_plain",
    answer: str | None = "Here you are.",
    *,
    sample: int = 0,
    consult: bool = False,
    arguments: str = '{"situation": "a delicate request"}',
    stop_reason: str = "answer",
    finish_reason: str = "stop",
    error: dict[str, str] | None = None,
    **more: Any,
) -> Episode:
    messages: list[dict[str, Any]] = [{"role": "user", "content": f"prompt {prompt_id}"}]
    turns = [{"index": 0, "request_digest": "r", "started_at": "2026-01-01T00:00:00Z", "seconds": 1.0}]
    consultations = []
    if consult:
        call = {
            "id": "c1",
            "type": "function",
            "function": {"name": "consult_safety_rules", "arguments": arguments},
        }
        messages += [
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": "[a.b] A rule"},
        ]
        try:
            situation = json.loads(arguments).get("situation")
        except ValueError:
            situation = None
        consultations.append(
            {
                "turn": 0,
                "call_id": "c1",
                "arguments": arguments,
                "situation": situation,
                "text": "[a.b] A rule",
            }
        )
        turns.append({**turns[0], "index": 1})
    if answer is not None:
        messages.append({"role": "assistant", "content": answer})
    turns[-1] |= {"finish_reason": finish_reason, "usage": {"completion_tokens": 10}}
    return Episode.model_validate(
        {
            "id": f"{prompt_id}-{sample}",
            "group_id": prompt_id,
            "prompt_id": prompt_id,
            "kind": kind,
            "prompt": f"prompt {prompt_id}",
            "sample_index": sample,
            "model_requested": "model",
            "endpoint": "http://127.0.0.1:1/v1",
            "policy_version": "start",
            "sampling_sent": {"temperature": 1.0, "max_tokens": 64},
            "prompt_digest": "d",
            "rulebook_digest": "ab" * 32,
            "messages": messages,
            "turns": turns,
            "consultations": consultations,
            "mode": "consult" if consult else "direct",
            "stop_reason": stop_reason,
            "error": error,
            "started_at": "2026-01-01T00:00:00Z",
            "seconds": 2.0,
            **more,
        }
    )


def write_log(path: Path, episodes: list[Episode]) -> Path:
    """Writes the episodes to a log file. Returns its path."""
    path.write_text("".join(episode.model_dump_json() + "\n" for episode in episodes), encoding="utf-8")
    return path
