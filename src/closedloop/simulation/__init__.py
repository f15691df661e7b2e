"""A market with known truth, to try a loop before money does."""
