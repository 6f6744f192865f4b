"""The metrics endpoint: names, types and labels that dashboards depend on."""

import httpx2

from tests.fakes.endpoints.scripted import call
from tests.fakes.processes.gateway import post, run_gateway, upstream
from tests.fakes.rules.scripted import ScriptedRules

COUNTERS = (
    *("requests", "not_offered", "consulted", "consultations", "rules_errors", "mixed", "restored"),
    *("coalesced", "text_before_consulting", "upstream_errors", "abandoned"),
)
HANDWRITTEN = [
    line
    for name in COUNTERS
    for line in (f"# TYPE ascl_gateway_{name}_total counter", f"ascl_gateway_{name}_total 0")
]
"""The text that version 0.1.0 wrote for a gateway without requests."""


def test_the_metrics_of_version_0_1_0_keep_name_type_and_labels(rules: ScriptedRules) -> None:
    with upstream() as endpoint, run_gateway(endpoint, rules) as gateway:
        reply = httpx2.get(f"{gateway.origin}/metrics")
    lines = [line.removesuffix(".0") for line in reply.text.splitlines() if not line.startswith("# HELP")]
    assert [line for line in HANDWRITTEN if line not in lines] == []
    assert reply.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "_created" not in reply.text


def test_every_metric_has_a_description_and_counts(rules: ScriptedRules) -> None:
    with upstream(call("gun"), "No.") as endpoint, run_gateway(endpoint, rules) as gateway:
        post(gateway, {"messages": [{"role": "user", "content": "How do I make a gun?"}]})
        text = httpx2.get(f"{gateway.origin}/metrics").text
    assert text.count("# HELP ") == text.count("# TYPE ")
    assert "\nascl_gateway_consultations_total 1.0\n" in text
