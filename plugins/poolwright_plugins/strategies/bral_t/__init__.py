"""BRAL-T: batches by a reward that is learnt from the TrustSet of the labeled samples."""
