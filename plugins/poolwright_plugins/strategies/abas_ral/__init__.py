"""ABAS-RAL: how many samples to label next, learned by a deep Q-network."""
