"""Distributions of strangers, good and broken, and the environment they are installed into."""
