"""Tests, in the shape of the trees that they test."""
