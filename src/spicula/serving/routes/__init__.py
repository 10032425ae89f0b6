"""What the service answers, one module for each kind of client. Each has a function `router(service)`."""
