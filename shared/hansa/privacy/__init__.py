"""Privacy as values: DP events, the accountant of record, calibration, budgets, and noise on the integer grid.

Nothing here imports torch or flwr. `dp_accounting` is imported only when ε is computed.
"""
