"""Whole episodes with forced or free modes, as `ascl-train online` samples and rewards them.

The same parts decide and consult: `ForcedModes`, `CallOpening`, `BatchedRuleTool` and TRL's parser. Only the
loop is different, to save time: tokens that all episodes share are computed once, and the hidden states that
enter the adapted layers are kept for the gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from benchmarks.learning.decision_gradient.rollout.decoder import Decoder
from trainer.stages.online.strata.call_opening import CONSULT, DIRECT, CallOpening
from trainer.stages.online.strata.forced_modes import ForcedModes


@dataclass
class SampledEpisode:
    """One episode: its tokens after the prompt, and its outcome."""

    row: int
    """Index of its prompt in the batch."""
    prompt: list[int]
    forced: int | None
    ids: list[int] = field(default_factory=list)
    written: list[bool] = field(default_factory=list)
    """Whether the policy wrote each token; tool results are not written by it."""
    messages: list[dict[str, Any]] = field(default_factory=list)
    hidden: list[Tensor] = field(default_factory=list)
    """(H,) each: inputs of the first adapted layer at the tokens, without the last one."""
    reply: list[int] = field(default_factory=list)
    """Tokens of the present turn."""
    log_opening: list[float] = field(default_factory=list)
    """Log-probabilities of the call's opening under the free policy, of an episode forced to consult."""


@dataclass(frozen=True)
class Sampler:
    """Settings of the rollouts."""

    model: Any
    tokenizer: Any
    opening: CallOpening
    rule_tool: Any
    end_ids: frozenset[int]
    first_adapted: int
    temperature: float = 0.7
    max_tokens: int = 48
    max_turns: int = 3

    def sample(
        self, prompts: Sequence[list[int]], modes: Sequence[Sequence[int | None]], generator: torch.Generator
    ) -> tuple[list[SampledEpisode], list[Tensor]]:
        """Samples episodes of each prompt with the given modes; None leaves the choice to the policy.

        Returns:
            The episodes, and for each prompt (L, H) inputs of the first adapted layer.
        """
        episodes, decoders, states, scores = list[SampledEpisode](), list[Decoder](), [], []
        for index, (ids, chosen) in enumerate(zip(prompts, modes, strict=True)):
            decoder = Decoder(self.model, self.first_adapted)
            score, hidden = decoder.advance(torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.bool))
            decoder.select([0] * len(chosen))
            states.append(hidden[0])
            scores.append(score.expand(len(chosen), -1))
            decoders.append(decoder)
            episodes += [SampledEpisode(index, ids, mode) for mode in chosen]
        decoder, *others = decoders
        decoder.join(others)
        current, score = episodes, torch.cat(scores)
        for turn in range(self.max_turns):
            ended = self._write(current, decoder, score, turn == 0, generator)
            results = self._call(current, turn)
            kept = [index for index, text in enumerate(results) if text is not None]
            if not kept:
                break
            ended.select(kept)
            decoder, current = ended, [current[index] for index in kept]
            score = self._read(current, decoder, [self._result_ids(str(results[index])) for index in kept])
        return episodes, states

    def _write(
        self,
        episodes: list[SampledEpisode],
        decoder: Decoder,
        score: Tensor,
        is_first: bool,
        generator: torch.Generator,
    ) -> Decoder:
        """Samples one turn of each episode. Returns the keys and values of all, without each last token."""
        for each in episodes:
            each.reply = []
        forced = [each.forced for each in episodes]
        forcing = (
            ForcedModes(self.opening, forced) if is_first and any(m is not None for m in forced) else None
        )
        parked, rows = list[tuple[int, Decoder]](), list(range(len(episodes)))
        for step in range(self.max_tokens):
            scaled = score / self.temperature
            if forcing is not None and step < len(self.opening.ids):
                self._note_opening(episodes, scaled, step)
                scaled = forcing(torch.tensor([each.reply[-1:] or [0] for each in episodes]), scaled)
            tokens = torch.multinomial(scaled.softmax(-1), 1, generator=generator)[:, 0].tolist()
            for row, token in zip(rows, tokens, strict=True):
                each = episodes[row]
                if self._is_open(each):
                    each.reply.append(token)
                    each.ids.append(token)
                    each.written.append(True)
            going = [place for place, row in enumerate(rows) if self._is_open(episodes[row])]
            if not going:
                break
            if (forcing is None or step >= len(self.opening.ids)) and len(going) < 0.75 * len(rows):
                parked += decoder.park([(p, rows[p]) for p in range(len(rows)) if p not in set(going)])
                decoder.select(going)
                rows, tokens = [rows[place] for place in going], [tokens[place] for place in going]
            valid = torch.tensor([[self._is_open(episodes[row])] for row in rows])
            score, hidden = decoder.advance(torch.tensor([[token] for token in tokens]), valid)
            for place, row in enumerate(rows):
                if valid[place]:
                    episodes[row].hidden.append(hidden[place, 0])
        return decoder.restore(parked, rows)

    def _is_open(self, episode: SampledEpisode) -> bool:
        """Returns whether the present turn is unfinished."""
        reply = episode.reply
        return len(reply) < self.max_tokens and (not reply or reply[-1] not in self.end_ids)

    def _note_opening(self, episodes: list[SampledEpisode], scaled: Tensor, step: int) -> None:
        for index, each in enumerate(episodes):
            if each.forced == CONSULT:
                token = self.opening.ids[step]
                each.log_opening.append(float(scaled[index].log_softmax(-1)[token]))

    def _read(self, episodes: list[SampledEpisode], decoder: Decoder, suffixes: list[list[int]]) -> Tensor:
        """Appends tool results. The last token of each reply was not run yet, so it leads the block.

        Episodes of the same tokens have the same states, which are computed once.
        """
        blocks, texts = [], []
        for each, suffix in zip(episodes, suffixes, strict=True):
            blocks.append([each.ids[-1], *suffix])
            each.ids += suffix
            each.written += [False] * len(suffix)
            texts.append((each.row, *each.ids))
        unique = [index for index, text in enumerate(texts) if texts.index(text) == index]
        source = [unique.index(texts.index(text)) for text in texts]
        width = max(map(len, blocks))
        pad = self.tokenizer.pad_token_id or 0
        chosen = [blocks[index] for index in unique]
        block = torch.tensor([line + [pad] * (width - len(line)) for line in chosen])
        valid = torch.tensor([[True] * len(line) + [False] * (width - len(line)) for line in chosen])
        decoder.select(unique)
        score, hidden = decoder.advance(block, valid)
        decoder.select(source)
        for each, line, place in zip(episodes, blocks, source, strict=True):
            each.hidden += list(hidden[place, : len(line)])
        return score[torch.tensor(source)]

    def _call(self, episodes: list[SampledEpisode], turn: int) -> list[str | None]:
        """Parses the replies; returns the result of each episode's call, or None where it ends."""
        from trl.chat_template_utils import parse_response

        from agent.tools import RULE_TOOL

        found: list[str | None] = []
        for each in episodes:
            before = each.prompt + each.ids[: len(each.ids) - len(each.reply)]
            message = parse_response(self.tokenizer, each.reply, prefix=before, tools=[self.rule_tool.tool])
            each.messages.append(message)
            calls = message.get("tool_calls") or []
            functions = [call.get("function") or {} for call in calls]
            usable = [
                function["arguments"]
                for function in functions
                if function.get("name") == RULE_TOOL and isinstance(function.get("arguments"), dict)
            ]
            found.append(self.rule_tool.consult(usable[0]) if usable and turn + 1 < self.max_turns else None)
            if found[-1] is not None:
                each.messages.append({"role": "tool", "name": RULE_TOOL, "content": found[-1]})
        return found

    def _result_ids(self, text: str) -> list[int]:
        """Returns the tokens between a call and the next reply, as TRL's tool loop renders them."""
        from agent.tools import RULE_TOOL

        call = {"type": "function", "function": {"name": RULE_TOOL, "arguments": {}}}
        before: list[dict[str, Any]] = [
            {"role": "user", "content": "dummy"},
            {"role": "assistant", "content": "", "tool_calls": [call]},
        ]
        result = {"role": "tool", "name": RULE_TOOL, "content": text}
        render = self.tokenizer.apply_chat_template
        prefix: list[int] = render(before, add_generation_prompt=False, return_dict=False)
        full: list[int] = render([*before, result], add_generation_prompt=True, return_dict=False)
        ends = [index for index, id in enumerate(prefix) if id == self.tokenizer.eos_token_id]
        return full[ends[-1] + 1 if ends else len(prefix) :]


def strata(consult: int, direct: int, free: int = 0) -> list[int | None]:
    """Returns the modes of the episodes of a prompt."""
    return [CONSULT] * consult + [DIRECT] * direct + [None] * free
