"""SRAL: smart reinforcement active learning (Jiu et al. 2026)."""

from .strategy import SRAL

__all__ = ["SRAL"]
