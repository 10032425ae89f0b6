"""Which images train, validate and test a model, and whether anything stands on two of these sides."""
