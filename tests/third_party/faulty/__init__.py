"""Plugins that break one rule of the conformance suite each, and good ones that break none."""
