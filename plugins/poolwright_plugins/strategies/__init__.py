"""Built-in strategies, one module for each family of methods."""
