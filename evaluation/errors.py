"""Errors that a user can act on.

EvaluationError
├── StartError           a server did not start
└── InputError           unusable input; also a ValueError
    ├── PromptError      prompts; also the agent's PromptError
    ├── LabelError       labels by people
    ├── RewardError      rewards
    ├── JudgeError       options of a judge
    ├── JudgementError   judgements
    ├── MalformedError   a reply of a judge
    ├── AgreementError   labelled answers
    ├── ArmError         an arm of a run or a report
    ├── ComparisonError  reports to compare
    └── RuleEditError    an edit of a rule
"""

from __future__ import annotations

import agent.errors


class EvaluationError(Exception):
    """Base class; its text is one sentence that a user can act on."""


class StartError(EvaluationError):
    """A server did not start."""


class InputError(EvaluationError, ValueError):
    """Unusable input."""


class PromptError(agent.errors.PromptError, InputError):
    """Unusable prompts; the message names the file and the line."""


class LabelError(InputError):
    """An unusable file of labels; the message names the file and the line."""


class RewardError(InputError):
    """An unusable file of rewards; the message names the file and the line."""


class JudgeError(InputError):
    """An unknown judge, or options that it does not take."""


class JudgementError(InputError):
    """An unusable file of judgements; the message names the file and the line."""


class MalformedError(InputError):
    """A reply that is not in the judge's format; the message describes the fault in a few words."""


class AgreementError(InputError):
    """Labelled answers that cannot be used; the message names the file and the line."""


class ArmError(InputError):
    """An arm that cannot be run or reported on."""


class ComparisonError(InputError):
    """Reports that cannot be compared."""


class RuleEditError(InputError):
    """A rule that cannot be edited as requested."""
