"""Privacy as values: DP events, accountants and their checks, budgets, calibration, and noise on the integer grid.

`accountant` is the answer of record and `crosscheck` what looks at it; `charges`, `composition`, `records` and `book`
are a member's budget, and `forecast` what it says before signing (docs/privacy-accounting.md).
Nothing here imports torch or flwr. `dp_accounting` is imported only when ε is computed.
"""
