"""Training stages `sft`, `logged` and `online`, and the code that they share."""

from trainer.stages.monitoring import Notify, SafetyFloor, held_out_problem, make_notifier, silence_libraries
from trainer.stages.run_record import common_record, mask_secrets, mask_secrets_in_text

__all__ = [
    "Notify",
    "SafetyFloor",
    "common_record",
    "held_out_problem",
    "make_notifier",
    "mask_secrets",
    "mask_secrets_in_text",
    "silence_libraries",
]
