"""Request and response models of MCP and REST. Unknown fields are errors; types are not coerced."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from rule_server.errors import ConsultError
from rule_server.rulebook import Category, Rule, Rulebook, Stance, has_visible

Verdict = Literal["rules_found", "no_applicable_rule"]
Reason = Literal["unsupported_language"]
"""Why no rule was searched: the encoders know too little of the question's language."""
MAX_SITUATION_CHARS = 4000
"""Maximum length of a situation."""
DEFAULT_NEAREST = 10
"""Number of rules that `/v1/nearest` returns when the request has no `top_k`."""


Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def _not_blank(text: str) -> str:
    if not has_visible(text):
        raise ValueError("it is blank")
    return text


def _whole_number(value: object) -> object:
    """Returns 3 for 3.0, which JSON Schema counts as an integer."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


class ConsultRequest(BaseModel):
    """One question to the rulebook. Optional fields may be null: some clients send every argument."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True)

    situation: Annotated[str, Field(min_length=1, max_length=MAX_SITUATION_CHARS), AfterValidator(_not_blank)]
    """The request and what is delicate in it, in a sentence or two."""
    categories: Annotated[list[str], Field(min_length=1, max_length=50)] | None = None
    """Only rules of these categories; usually left out."""
    top_k: Annotated[int, Field(ge=1, le=10), BeforeValidator(_whole_number)] | None = None
    """How many rules."""
    lang: Annotated[str, Field(max_length=35)] | None = None
    """Language of the texts (de), where there is a translation."""


class RestConsultRequest(ConsultRequest):
    """One question over REST, optionally to an earlier rulebook."""

    digest: Digest | None = None
    """Digest of the rulebook to query, from an earlier response."""


class _ResponseModel(BaseModel):
    # Later versions may add fields, so the schema allows additional properties.
    model_config = ConfigDict(strict=True, frozen=True)


class NearRule(_ResponseModel):
    """A rule and its score."""

    id: str
    title: str
    category: str
    stance: Stance
    score: float
    """How certain it is that the rule applies, from 0 to 1. 0.5 is the default threshold."""


class FoundRule(NearRule):
    """A rule that applies."""

    text: str


class RulebookRef(_ResponseModel):
    """Identifies the rulebook that answered."""

    name: str
    version: str
    digest: str

    @classmethod
    def of(cls, rulebook: Rulebook) -> RulebookRef:
        return cls(name=rulebook.name, version=rulebook.version, digest=rulebook.digest)


class ConsultResponse(_ResponseModel):
    """Response to a consultation. `rules` is empty if and only if no rule applies."""

    verdict: Verdict
    rules: list[FoundRule]
    threshold: float
    rulebook: RulebookRef
    reason: Reason | None = None
    """Why no rule was searched; null if the rules were searched."""

    def as_text(self) -> str:
        """Returns the compact text that a model reads: verdict, rule ids, titles, stances and texts.

        The digest is left out. It means nothing to a model, and editing one rule would otherwise change the
        text of every consultation, including those that the edit does not concern.
        """
        if self.rules:
            texts = [f"[{rule.id}] {rule.title} ({rule.stance})\n{rule.text}" for rule in self.rules]
            parts = [self.verdict, *texts]
        elif self.reason == "unsupported_language":
            parts = [
                f"{self.verdict}: the rules cannot be searched in this language; consult again with the "
                "situation in English, or answer as you would without a rule."
            ]
        else:
            parts = [f"{self.verdict}: no safety rule is about this; answer as you would without one."]
        return "\n\n".join(parts)


class NearestResponse(_ResponseModel):
    """The rules nearest to a situation, best first, including those below the threshold."""

    rules: list[NearRule]
    threshold: float
    rulebook: RulebookRef
    reason: Reason | None = None
    """Why no rule was searched; null if the rules were searched."""


class CategoryView(_ResponseModel):
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
        fields = category.model_dump(include={"id", "title", "summary", "mlcommons", "severity"})
        return cls(**fields, rules=rules)


class RuleView(_ResponseModel):
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
        fields = rule.model_dump(include={"id", "title", "stance", "applies_when", "not_when"})
        return cls(**fields, category=rule.category, text=rule.text)


def parse_request(arguments: Any) -> ConsultRequest:
    """Parses the arguments of a tool call.

    Raises:
        ConsultError: invalid arguments; the message is one sentence that a model can act on.
    """
    try:
        return ConsultRequest.model_validate(arguments)
    except ValidationError as error:
        raise ConsultError(explain_errors(error.errors())) from None


def explain_errors(errors: Any, model: type[BaseModel] = ConsultRequest) -> str:
    """Returns the validation errors of a model as one sentence, without quoting the caller's values."""
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
