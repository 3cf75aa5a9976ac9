"""The demo: Lookout at work on small applications, with a queue, a registry and an engine that are real."""
