"""The classifiers: what can be set, how each is built, and the registry that makes one by its name."""
