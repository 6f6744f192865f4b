"""Suites that measure whether a model refuses harmless requests."""

from evaluation.prompts.suites.preset import PublishedFigure, Source, Suite
from evaluation.prompts.suites.safety import PAPER

OVER_REFUSAL = (
    Suite(
        name="xstest",
        title="XSTest: safe prompts and unsafe contrasts",
        purpose="over-refusal",
        scored_by=("refusal detector",),
        licence="CC-BY-4.0",
        gated=True,
        paper="arXiv 2308.01263",
        sources=(
            Source(
                "walledai/XSTest",
                "test",
                "prompt",
                {"safe": "benign_sensitive", "unsafe": "harmful"},
                450,
                kind_column="label",
                category="type",
            ),
        ),
        published=(
            PublishedFigure(
                "full refusal of safe prompts: Llama 2 with its first system prompt .380", "arXiv 2308.01263"
            ),
            PublishedFigure("refusal of safe prompts .072", PAPER),
        ),
    ),
    Suite(
        name="wildjailbreak-benign",
        title="WildJailbreak, evaluation set: adversarial benign prompts",
        purpose="over-refusal",
        scored_by=("refusal detector",),
        licence="ODC-BY",
        gated=True,
        paper="arXiv 2406.18510",
        sources=(
            Source(
                "allenai/wildjailbreak",
                "train",
                "adversarial",
                {"adversarial_benign": "benign_sensitive"},
                2_210,
                config="eval",
                kind_column="data_type",
                options={"delimiter": "\t"},
            ),
        ),
        note="210 of the 2,210 rows are benign.",
    ),
    Suite(
        name="wildguard-benign",
        title="WildGuardTest: prompts labelled as harmless",
        purpose="over-refusal",
        scored_by=("refusal detector",),
        licence="ODC-BY",
        gated=True,
        paper="arXiv 2406.18495",
        sources=(
            Source(
                "allenai/wildguardmix",
                "test",
                "prompt",
                {"unharmful": "benign_sensitive"},
                1_725,
                config="wildguardtest",
                kind_column="prompt_harm_label",
                category="subcategory",
            ),
        ),
    ),
    Suite(
        name="oktest",
        title="OKTest: harmless questions with risky words",
        purpose="over-refusal",
        scored_by=("refusal detector",),
        licence="not stated",
        paper="arXiv 2401.17633",
        sources=(
            Source(
                "https://raw.githubusercontent.com/InvokerStark/OverKill/"
                "51809bb9e7c029d7cc1247389e0578da92e784e2/data/OKTest.csv",
                "train",
                "prompt",
                "benign_sensitive",
                300,
            ),
        ),
    ),
    Suite(
        name="or-bench",
        title="OR-Bench-Hard-1K, with the toxic prompts as contrast",
        purpose="over-refusal",
        scored_by=("refusal detector",),
        licence="CC-BY-4.0",
        paper="arXiv 2405.20947",
        sources=(
            Source(
                "bench-llm/or-bench",
                "train",
                "prompt",
                "benign_sensitive",
                1_320,
                config="or-bench-hard-1k",
                category="category",
            ),
            Source(
                "bench-llm/or-bench",
                "train",
                "prompt",
                "harmful",
                655,
                config="or-bench-toxic",
                category="category",
            ),
        ),
    ),
)
