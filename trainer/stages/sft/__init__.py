"""The stage `sft`: a cold start by supervised fine-tuning."""
