"""Programs in completions: run in a sandbox, and judged outside it."""
