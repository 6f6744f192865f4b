"""A scripted `vllm serve`: the HTTP routes that TRL's client uses, with scripted tokens, without weights.

`install(folder)` writes the command `vllm`, and a package `vllm` that stands in for the NCCL side of the
trainer: weights are announced over HTTP and walked, but not sent.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

VERSION = "0.31.0"
VOCABULARY = 100
LENGTH = 12
POLICY = "ASCL_TEST_VLLM_POLICY"
"""Environment variable: a file with the fields of `Policy`, in JSON."""

PACKAGE = '''"""Stands in for vLLM, whose weight transfer needs a GPU."""


def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    from trl.generation import vllm_client

    def init_communicator(self, device=0):
        self.get_server_info()
        info = {"init_info": {"world_size": self.get_world_size() + 1}}
        self._post(f"{self.base_url}/init_weight_transfer_engine", json=info)

    vllm_client.VLLMClient.init_communicator = init_communicator
    return type(name, (), {})
'''
MODULES = {
    "sampling_params.py": "StructuredOutputsParams = None\n",
    "utils/network_utils.py": "def get_ip():\n    return '127.0.0.1'\n",
    "distributed/weight_transfer/nccl_common.py": "trainer_init = None\n",
    "distributed/weight_transfer/packed_tensor.py": (
        "def packed_nccl_broadcast_producer(iterator, **_):\n    list(iterator)\n"
    ),
}


def install(folder: Path, root: Path) -> None:
    """Writes `bin/vllm` and `packages/vllm` into the folder."""
    package = folder / "packages" / "vllm"
    for name, text in {"__init__.py": PACKAGE, **MODULES}.items():
        file = package / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        for parent in file.parents:
            if parent == package:
                break
            (parent / "__init__.py").touch()
    metadata = folder / "packages" / f"vllm-{VERSION}.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {VERSION}\n", encoding="utf-8")
    metadata.with_name("top_level.txt").write_text("vllm\n", encoding="utf-8")
    command = folder / "bin" / "vllm"
    command.parent.mkdir()
    command.write_text(
        f'#!/bin/sh\nPYTHONPATH={root} exec {sys.executable} -m tests.fakes.endpoints.serve_vllm "$@"\n',
        encoding="utf-8",
    )
    command.chmod(0o755)


@dataclass(frozen=True)
class Policy:
    """Tokens that a server samples; random ones by default."""

    following: dict[str, dict[str, float]] = field(default_factory=dict)
    """By the latest token, the probabilities of the next one."""
    replies: list[tuple[list[int], list[int]]] = field(default_factory=list)
    """Ends of a context, and the tokens that certainly follow them."""
    ends: list[int] = field(default_factory=list)
    """Tokens that end a reply."""
    requests: str | None = None
    """File to which the body of every request is appended."""

    def probabilities(self, context: list[int]) -> dict[int, float]:
        """Returns the probabilities of the next token."""
        for end, reply in self.replies:
            for written in reversed(range(len(reply))):
                before = [*end, *reply[:written]]
                if context[-len(before) :] == before:
                    return {reply[written]: 1.0}
        table = self.following.get(str(context[-1]))
        if table is not None:
            return {int(token): probability for token, probability in table.items()}
        return dict.fromkeys(range(VOCABULARY), 1 / VOCABULARY)

    def sample(self, prompt: list[int], body: dict[str, Any], draw: random.Random) -> tuple[Any, Any]:
        """Returns the tokens of a reply, and their log-probabilities after the bias, like vLLM."""
        ends, bias = {*self.ends, *(body.get("stop_token_ids") or [])}, body.get("logit_bias") or {}
        tokens: list[int] = []
        logprobs = []
        limit = body["max_tokens"] if self.following or self.replies else min(LENGTH, body["max_tokens"])
        while len(tokens) < limit and not (tokens and tokens[-1] in ends):
            table = self.probabilities([*prompt, *tokens])
            weights = {token: p * math.exp(bias.get(str(token), 0)) for token, p in table.items()}
            (token,) = draw.choices(list(weights), list(weights.values()))
            tokens.append(token)
            logprobs.append(math.log(weights[token] / sum(weights.values())))
        return tokens, logprobs


def app(model: str, policy: Policy) -> Starlette:
    """Returns the server's routes."""
    draw = random.Random(0)

    async def ready(_: Request) -> JSONResponse:
        return JSONResponse({})

    async def models(_: Request) -> JSONResponse:
        return JSONResponse({"data": [{"id": model}]})

    async def info(_: Request) -> JSONResponse:
        config = {
            "weight_transfer_config": {"backend": "nccl"},
            "model_config": {"logprobs_mode": "processed_logprobs"},
        }
        return JSONResponse({"vllm_config": config})

    async def world_size(_: Request) -> JSONResponse:
        return JSONResponse({"world_size": 1})

    async def completions(request: Request) -> JSONResponse:
        body = await request.json()
        if policy.requests is not None:
            with Path(policy.requests).open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(body) + "\n")
        return JSONResponse(
            {"choices": [choice(prompt, body) for prompt in body["prompt"] for _ in range(body["n"])]}
        )

    def choice(prompt: list[int], body: dict[str, Any]) -> dict[str, Any]:
        tokens, logprobs = policy.sample(prompt, body, draw)
        names = [f"token_id:{token}" for token in tokens]
        return {
            "prompt_token_ids": prompt,
            "token_ids": tokens,
            "logprobs": {
                "tokens": names,
                "token_logprobs": logprobs,
                "top_logprobs": [{name: each} for name, each in zip(names, logprobs, strict=True)],
            },
        }

    async def reset(_: Request) -> JSONResponse:
        return JSONResponse({"success": True})

    posted = ("init_weight_transfer_engine", "start_weight_update", "update_weights", "finish_weight_update")
    return Starlette(
        routes=[
            Route("/health", ready),
            Route("/v1/models", models),
            Route("/server_info", info),
            Route("/get_world_size", world_size),
            Route("/v1/completions", completions, methods=["POST"]),
            Route("/reset_prefix_cache", reset, methods=["POST"]),
            *(Route(f"/{name}", ready, methods=["POST"]) for name in posted),
        ]
    )


def main() -> None:
    """Serves until it is stopped, with vLLM's options."""
    parser = argparse.ArgumentParser()
    parser.add_argument("verb")
    parser.add_argument("model")
    parser.add_argument("--port", type=int)
    options, _ = parser.parse_known_args()
    file = os.environ.get(POLICY)
    policy = Policy(**json.loads(Path(file).read_text(encoding="utf-8"))) if file else Policy()
    uvicorn.run(app(options.model, policy), host="127.0.0.1", port=options.port)


if __name__ == "__main__":
    main()
