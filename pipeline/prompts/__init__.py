"""From a heap of conversations to a delivery's prompts: sources, filters, topics, complexity, the draw."""
