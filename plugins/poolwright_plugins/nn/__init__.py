"""Networks, losses and training shared by the adversarial strategies."""
