"""One file a scenario: one anchor query each."""
