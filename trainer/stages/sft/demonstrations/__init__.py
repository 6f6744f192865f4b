"""What the cold start learns from: `written.jsonl`, by hand, and `demonstrations.jsonl`, its episodes."""
