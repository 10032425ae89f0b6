"""How good a model is on patients it never saw, how sure that is, and whether another is better."""
