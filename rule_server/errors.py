"""Exceptions of the rule service. Every message is one sentence for the person who can fix the problem.

RuleServiceError
├── RulebookError         the rules folder cannot be served
├── EncoderError          the embedding model is missing or unusable
├── ArtefactError         the index artefact is missing, damaged or not writable
├── StartError            the settings are invalid or unsafe
├── ConsultError          a request that cannot be answered as sent
│   └── UnknownDigestError    it names a rulebook that is not available
├── AuditError            a consultation cannot be written to the audit log
├── AuthUnavailableError  a caller's token cannot be verified now
└── NotReadyError         a request before the service is warm
"""


class RuleServiceError(Exception):
    """Base of every exception that this package raises on purpose."""


class RulebookError(RuleServiceError):
    """The rules folder cannot be served."""


class EncoderError(RuleServiceError):
    """The embedding model is missing or unusable."""


class ArtefactError(RuleServiceError):
    """The index artefact is missing, damaged or not writable."""


class StartError(RuleServiceError):
    """The service cannot start with these settings."""


class ConsultError(RuleServiceError):
    """The request cannot be answered as sent."""


class UnknownDigestError(ConsultError):
    """The request names a rulebook that is not available."""


class AuditError(RuleServiceError):
    """The consultation cannot be written to the audit log, so it must not be answered."""


class AuthUnavailableError(RuleServiceError):
    """The caller's token cannot be verified now."""


class NotReadyError(RuleServiceError):
    """The service is not warm yet."""
