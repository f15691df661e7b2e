"""Statistics: arrays in, arrays out, no marketing word."""
