"""A message on an SQS queue becomes a safe redeploy of Docker containers."""
