"""Act 2: what the packaged model has seen of the edit and of the prompt."""

from __future__ import annotations

import re

from demo import full
from demo.__main__ import EDIT_PROMPTS, EDITED_TEXT
from demo.runner import EDITED_RULE, ROOT
from evaluation.prompts import load_prompts
from trainer.stages.sft.demonstrations import edited_rules, read_written_demonstrations


def test_the_packaged_model_has_seen_neither_the_prompt_nor_the_edit() -> None:
    [prompt] = load_prompts(ROOT / EDIT_PROMPTS)
    written = [*read_written_demonstrations(), *read_written_demonstrations(edited_rules.HARMLESS)]
    assert prompt.prompt not in {line.prompt for line in written}
    body = (ROOT / EDITED_TEXT).read_text(encoding="utf-8").split("---\n")[2]
    sentences = {part.strip() for part in re.split(r"[.:\n]", body) if len(part.split()) > 3}
    assert len(sentences) >= 3
    assert not [s for s in sentences for text in edited_rules.DECLINE if s in text]
    [command] = [step.command for step in full.steps("run") if ".edited_rules " in step.command]
    assert f" --hold-out {EDITED_RULE} " in command


def test_the_edit_changes_only_the_stance_and_the_text_of_the_rule() -> None:
    files = (ROOT / "rules").glob("*/*.md")
    texts = [file.read_text(encoding="utf-8") for file in files if "." not in file.stem]
    [original] = [text for text in texts if f"\nid: {EDITED_RULE}\n" in text]
    edited = (ROOT / EDITED_TEXT).read_text(encoding="utf-8")
    assert original.split("---\n")[1].replace("stance: answer", "stance: decline") == edited.split("---\n")[1]
    assert original.split("---\n")[2] != edited.split("---\n")[2]
