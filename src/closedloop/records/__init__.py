"""The frozen records that cross the doors between rooms.

Law of this folder: values only, no I/O, no clock, no randomness of its own. A change of state returns a new value.
"""
