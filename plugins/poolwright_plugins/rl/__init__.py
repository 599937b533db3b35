"""Reinforcement learning for strategies: replay, targets, updates and noise, small and without hidden state.

torchrl (0.14) was tried first and does not serve here. The state of its prioritised buffers holds segment trees,
objects of its compiled extension: a checkpoint, which is plain data read with ``weights_only=True``, cannot keep them.
It adds a constant to |td| where ABAS-RAL's priorities have a floor. And every run would load a second compiled
extension, bound to torch's version, for a few lines of arithmetic.

Nothing here draws from a generator of its own: draws come from the ``torch.Generator`` that is given, fresh weights
from torch's global one, which the engine seeds around every hook. Whatever changes is in a ``state_dict`` of tensors,
numbers, lists and dicts.
"""
