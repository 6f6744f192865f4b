"""The training stages `sft`, `logged` and `online`, and what they share."""

from trainer.stages.progress import Notify, make_notifier, silence_libraries
from trainer.stages.run_record import common_record, mask_secrets, mask_secrets_in_text

__all__ = [
    "Notify",
    "common_record",
    "make_notifier",
    "mask_secrets",
    "mask_secrets_in_text",
    "silence_libraries",
]
