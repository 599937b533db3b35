"""Built-in wrappers: what is put around a strategy's hooks."""
