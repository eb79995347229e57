"""Who answers which prompt, the contexts that they see, and the answers: plan, requests, engine."""
