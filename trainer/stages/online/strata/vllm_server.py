"""Samples with a vLLM server: every process asks for its own replies, and forced ones are sampled in parts.

TRL's server mode sends the prompts of all processes in one request of the first process. Modes cannot be
forced in it, because a request has one set of sampling parameters. And it needs the same number of prompts on
every process, but after a first turn only the replies with a call have a next turn (huggingface/trl#6673).
So here each process sends its own requests, with the fields that its replies need.

A request's fields act on all of its tokens, so a forced reply is sampled in parts: its thoughts, until the
token that ends them; its decision; and the rest, without any field. A reply that must consult gets the tokens
that open a call as part of the prompt of its rest. For one that must answer directly, a request of a single
token has a bias against the first token of a call.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Protocol

from trainer.stages.online.strata.call_opening import CONSULT, DIRECT, CallOpening, Decision

BIAS = -100.0
"""Bias against a token, the strongest that the API accepts. It turns odds of a billion to one into 1e-35."""
Logprobs = list[float | None]
Reply = tuple[list[int], Logprobs]
"""Tokens, and the log-probability that the server gives for each; None where it has none."""
_ALMOST_ZERO = 1e-7


class Ask(Protocol):
    """Requests one reply of up to `length` tokens to each prompt, with further fields of the request."""

    def __call__(self, prompts: list[list[int]], length: int, **fields: Any) -> list[Reply]: ...


class ServerSampler:
    """Takes the place of `generate` and `sync_weights` of TRL's `VLLMGeneration` in server mode.

    Args:
        generation: TRL's connection to the server, and its sampling settings.
        accelerator: accelerator of the trainer.
    """

    def __init__(self, generation: Any, accelerator: Any) -> None:
        from trl.generation.vllm_client import VLLMClient

        self._generation, self._accelerator = generation, accelerator
        self._client: Any = getattr(generation, "vllm_client", None)
        if self._client is None:  # TRL connects only the first process
            url = generation.server_base_url or f"http://{generation.server_host}:{generation.server_port}"
            self._client = VLLMClient(base_url=url, connection_timeout=generation.server_timeout)
        self._forced: tuple[CallOpening, Sequence[int | None], Sequence[int]] | None = None
        self._send_weights = generation.sync_weights
        generation.sync_weights, generation.generate = self.sync_weights, self.generate

    def sync_weights(self) -> None:
        """Sends the weights to the server. No process samples before the server has them."""
        self._send_weights()
        self._accelerator.wait_for_everyone()

    @contextmanager
    def modes_forced(
        self, opening: CallOpening, modes: Sequence[int | None], ends: Sequence[int]
    ) -> Iterator[None]:
        """Within the block, `generate` forces the modes of its (B,) replies.

        Args:
            ends: tokens that end a reply.
        """
        self._forced = opening, modes, ends
        try:
            yield
        finally:
            self._forced = None

    def generate(self, prompts: Any, images: Any, num_generations: int, profiler: Any = None) -> Any:
        """Returns one reply to each prompt of this process, in the form of `VLLMGeneration.generate`."""
        length = self._generation.max_completion_length
        with profiler or nullcontext():
            if self._forced is None:
                replies = self._ask(prompts, length)
            else:
                replies = sample_forced(self._ask, prompts, length, *self._forced)
        logprobs = [[[each] for each in line] for _, line in replies]
        return prompts, [ids for ids, _ in replies], logprobs, None

    def _ask(self, prompts: list[list[int]], length: int, **fields: Any) -> list[Reply]:
        settings = self._generation
        output = self._client.generate(
            prompts=prompts,
            n=1,
            repetition_penalty=settings.repetition_penalty,
            temperature=settings.temperature,
            top_p=settings.top_p,
            top_k=settings.top_k,
            min_p=0.0 if settings.min_p is None else settings.min_p,
            max_tokens=length,
            logprobs=settings.logprobs,
            structured_outputs_regex=settings.structured_outputs_regex,
            generation_kwargs={**settings.generation_kwargs, **fields},
        )
        lines = [[each[0] for each in line] for line in output["logprobs"]]
        return list(zip(output["completion_ids"], lines, strict=True))


def sample_forced(
    ask: Ask,
    prompts: Sequence[list[int]],
    length: int,
    opening: CallOpening,
    modes: Sequence[int | None],
    ends: Sequence[int],
) -> list[Reply]:
    """Samples one reply to each prompt, each forced into its mode, or free where its mode is None.

    Returns:
        The replies. Tokens that were forced have the log-probability 0, and those of a request with a bias
        have that of the biased distribution: `correct_logprobs` makes both those of the policy.

    Args:
        length: maximum number of tokens of a reply.
        ends: tokens that end a reply.
    """
    ids: list[list[int]] = [[] for _ in prompts]
    logprobs: list[Logprobs] = [[] for _ in prompts]

    def open_rows(rows: Sequence[int]) -> list[int]:
        return [row for row in rows if len(ids[row]) < length and not (ids[row] and ids[row][-1] in ends)]

    def extend(rows: Sequence[int], count: int, **fields: Any) -> None:
        rows = open_rows(rows)
        if not rows:
            return
        replies = ask([prompts[row] + ids[row] for row in rows], count, **fields)
        for row, (tokens, line) in zip(rows, replies, strict=True):
            ids[row] = (ids[row] + tokens)[:length]
            logprobs[row] = (logprobs[row] + line)[:length]

    deciding = [row for row, mode in enumerate(modes) if mode is not None]
    if opening.thoughts_end is not None:
        extend(deciding, length, stop_token_ids=[*ends, opening.thoughts_end])
        deciding = [row for row in deciding if ids[row][-1] == opening.thoughts_end]
    direct = [row for row in deciding if modes[row] == DIRECT]
    if opening.lead:
        starts = {row: len(ids[row]) for row in direct}
        extend(direct, opening.lead)
        direct = [row for row in direct if ids[row][starts[row] :] == opening.ids[: opening.lead]]
    extend(direct, 1, logit_bias={str(opening.ids[opening.lead]): BIAS})
    for row in deciding:
        if modes[row] == CONSULT:
            ids[row] = (ids[row] + opening.ids)[:length]
            logprobs[row] = (logprobs[row] + [0.0] * len(opening.ids))[:length]
    everything = open_rows(range(len(prompts)))
    if everything:
        extend(everything, length - min(len(ids[row]) for row in everything))
    return list(zip(ids, logprobs, strict=True))


def correct_logprobs(
    logprobs: Logprobs,
    mode: int | None,
    opening: CallOpening,
    decision: Decision,
    reply: Sequence[int],
    opens: Sequence[float],
) -> Logprobs:
    """Returns the log-probabilities of a reply's tokens under the unforced policy.

    TRL compares them with the trainer's own, to correct for the difference between the two engines. Given the
    mode, a token that opens a call has the probability 1 in both, so it gets the trainer's log-probability.
    The first token of a forced direct answer was drawn among those that do not begin a call, so it is less
    probable by the share of these.

    Args:
        logprobs: those of `sample_forced`.
        opens: (len(opening.ids),) the trainer's log-probabilities of the tokens that open a call there.
    """
    corrected = list(logprobs)
    start, end = decision.start, decision.end
    biased = start + opening.lead
    if mode == CONSULT and end:
        corrected[start:end] = opens[: end - start]
    elif mode == DIRECT and end > biased and list(reply[start:biased]) == opening.ids[: opening.lead]:
        sampled = corrected[biased]
        if sampled is not None:
            share = max(-math.expm1(min(opens[opening.lead], 0.0)), _ALMOST_ZERO)
            corrected[biased] = sampled + math.log(share)
    return corrected
