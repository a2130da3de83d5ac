"""Checking a federation from outside: from copies of its logs and public keys, trusting nobody."""
