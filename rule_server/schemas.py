"""The consult contract, the same for MCP and REST: unknown fields are errors, types are not coerced."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from rule_server.errors import ConsultError
from rule_server.rulebook import Category, Rule, Rulebook, Stance

Verdict = Literal["rules_found", "no_applicable_rule"]
LONGEST = 4000
"""Characters of a situation."""
NEAREST = 10
"""Rules that are compared with the threshold for a person who asks why."""


Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("it is blank")
    return text


class ConsultRequest(BaseModel):
    """One question to the rulebook. Optional fields may be null: some clients send every argument."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True)

    situation: Annotated[str, Field(min_length=1, max_length=LONGEST), AfterValidator(_not_blank)]
    """The request and what is delicate in it, in a sentence or two."""
    categories: Annotated[list[str], Field(min_length=1, max_length=50)] | None = None
    """Only rules of these categories; usually left out."""
    top_k: Annotated[int, Field(ge=1, le=10)] | None = None
    """How many rules."""
    lang: Annotated[str, Field(max_length=35)] | None = None
    """Language of the texts (de), where there is a translation."""


class RestConsultRequest(ConsultRequest):
    """One question by REST, which may be put to an earlier rulebook."""

    digest: Digest | None = None
    """Ask the rulebook of this digest, as an earlier answer names it."""


class _Answer(BaseModel):
    # Fields may be added later, so the schema does not promise that there are no others.
    model_config = ConfigDict(strict=True, frozen=True)


class NearRule(_Answer):
    """A rule and how near it is."""

    id: str
    title: str
    category: str
    stance: Stance
    score: float
    """How much nearer the situation is to the rule and its category than to everyday requests."""


class FoundRule(NearRule):
    """A rule that applies."""

    text: str


class RulebookRef(_Answer):
    """Which rulebook answered."""

    name: str
    version: str
    digest: str

    @classmethod
    def of(cls, rulebook: Rulebook) -> RulebookRef:
        return cls(name=rulebook.name, version=rulebook.version, digest=rulebook.digest)


class ConsultResponse(_Answer):
    """What the rulebook answers; `rules` is empty if and only if no rule applies."""

    verdict: Verdict
    rules: list[FoundRule]
    threshold: float
    rulebook: RulebookRef

    def as_text(self) -> str:
        """The same for a model that reads, compact: what was found, with ids and stances.

        The digest is not in it: it means nothing to a model, and an edit of one rule would change what
        every consultation reads, and with it answers that the edit is not about.
        """
        if self.rules:
            found = [f"[{rule.id}] {rule.title} ({rule.stance})\n{rule.text}" for rule in self.rules]
            parts = [self.verdict, *found]
        else:
            parts = [f"{self.verdict}: no safety rule is about this; answer as you would without one."]
        return "\n\n".join(parts)


class NearestResponse(_Answer):
    """The rules nearest to a situation, best first, with those that do not reach the threshold."""

    rules: list[NearRule]
    threshold: float
    rulebook: RulebookRef


class CategoryView(_Answer):
    """A category as REST lists it."""

    id: str
    title: str
    summary: str
    mlcommons: list[str]
    severity: str
    rules: int

    @classmethod
    def of(cls, category: Category, rulebook: Rulebook) -> CategoryView:
        rules = sum(rule.category == category.id for rule in rulebook.served.values())
        shown = category.model_dump(include={"id", "title", "summary", "mlcommons", "severity"})
        return cls(**shown, rules=rules)


class RuleView(_Answer):
    """A rule as REST and `rules://{id}` show it."""

    id: str
    title: str
    category: str
    stance: Stance
    applies_when: str
    not_when: str | None
    text: str

    @classmethod
    def of(cls, rule: Rule) -> RuleView:
        shown = rule.model_dump(include={"id", "title", "stance", "applies_when", "not_when"})
        return cls(**shown, category=rule.category, text=rule.text)


def parse_request(arguments: Any) -> ConsultRequest:
    """The arguments of a caller as a request.

    Raises:
        ConsultError: one sentence that a model can act on.
    """
    try:
        return ConsultRequest.model_validate(arguments)
    except ValidationError as error:
        raise ConsultError(explain(error.errors())) from None


def explain(errors: Any, model: type[BaseModel] = ConsultRequest) -> str:
    """Validation errors of a model as one sentence, without the caller's text."""
    known = ", ".join(model.model_fields)
    reasons = []
    for item in errors:
        loc = [str(part) for part in item["loc"] if part != "body"]
        name = ".".join(loc) or "the arguments"
        if item["type"] == "missing":
            reasons.append(f"`{name}` is missing" if loc else "the body is missing")
        elif item["type"] == "extra_forbidden":
            reasons.append(f"`{name[:64]}` is not an argument (known: {known})")
        else:
            message = item["msg"].removeprefix("Value error, ")
            reasons.append(f"`{name}`: {message[:1].lower()}{message[1:]}")
    return "; ".join(reasons[:5])
