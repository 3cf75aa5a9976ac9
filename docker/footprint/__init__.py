"""What Lookout takes of a machine, beside the least that such a daemon can take."""
