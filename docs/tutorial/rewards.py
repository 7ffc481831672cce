def shows_work(prompts, completions, completion_ids, **columns):
    """1 where a completion works the answer out; a text for rows whose prompt is a text, messages for those with messages."""
    texts = [each if isinstance(each, str) else each[-1]["content"] for each in completions]
    return [float("=" in text) for text in texts]
