"""Stage `sft`: cold start by supervised fine-tuning."""
