"""What a secure sum adds up: integers modulo 2^32.

Masks, shares and the two state machines of the secure sum will live here; the ring they work in comes first,
because everything that leaves a member is already a vector in it.
"""
