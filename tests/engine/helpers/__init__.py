"""What the tests of the engine share: made data, a tiny learner, small strategies, and a process that can be killed."""
