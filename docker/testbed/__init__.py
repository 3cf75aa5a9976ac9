"""Real parts for tests and the demo: a Docker Engine, registries and an SQS server of our own."""
