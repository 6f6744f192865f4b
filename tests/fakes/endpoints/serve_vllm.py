"""A scripted `vllm serve`: the HTTP routes that TRL's client uses, with random tokens and no weights.

`install(folder)` writes the command `vllm`, and a package `vllm` that stands in for the NCCL side of the
trainer: weights are announced over HTTP and walked, but not sent.
"""

from __future__ import annotations

import argparse
import random
import sys
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


def app(model: str) -> Starlette:
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
        return JSONResponse(
            {"choices": [choice(prompt, body) for prompt in body["prompt"] for _ in range(body["n"])]}
        )

    def choice(prompt: list[int], body: dict[str, Any]) -> dict[str, Any]:
        tokens = [draw.randrange(VOCABULARY) for _ in range(min(LENGTH, body["max_tokens"]))]
        names = [f"token_id:{token}" for token in tokens]
        return {
            "prompt_token_ids": prompt,
            "token_ids": tokens,
            "logprobs": {
                "tokens": names,
                "token_logprobs": [-4.0] * len(tokens),
                "top_logprobs": [{name: -4.0} for name in names],
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
    uvicorn.run(app(options.model), host="127.0.0.1", port=options.port)


if __name__ == "__main__":
    main()
