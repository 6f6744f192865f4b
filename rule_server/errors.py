"""What can go wrong, as one family. Every message is one sentence for the person who can fix it.

RuleServiceError
├── RulebookError    the rules folder cannot be served as it is
├── EncoderError     no embedding model, or one that cannot be used
├── ArtefactError    the index artefact is missing, damaged or cannot be written
├── StartError       settings that must not be served with
├── ConsultError     a question that cannot be answered as asked
│   └── UnknownDigestError  it names a rulebook that is not held
├── AuditError       a consultation cannot be written down
├── AuthUnavailableError  who asks cannot be checked now
└── NotReadyError    asked before the service is warm
"""


class RuleServiceError(Exception):
    """Base of everything this package raises on purpose."""


class RulebookError(RuleServiceError):
    """The rules folder cannot be served as it is."""


class EncoderError(RuleServiceError):
    """No embedding model was found, or the one found cannot be used."""


class ArtefactError(RuleServiceError):
    """The index artefact is missing, damaged or cannot be written."""


class StartError(RuleServiceError):
    """Settings that the service must not start with."""


class ConsultError(RuleServiceError):
    """A question that cannot be answered as asked."""


class UnknownDigestError(ConsultError):
    """It names a rulebook that is not held."""


class AuditError(RuleServiceError):
    """A consultation cannot be written down, so it must not be answered."""


class AuthUnavailableError(RuleServiceError):
    """Who asks cannot be checked now."""


class NotReadyError(RuleServiceError):
    """Asked before the service is warm."""
