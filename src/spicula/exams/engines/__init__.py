"""Where tasks are run: in worker processes here (`local`), or on the machines of a Ray cluster (`ray`)."""
