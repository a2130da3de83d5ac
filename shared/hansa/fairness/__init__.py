"""Private evaluation by group: integer tables, a release of them, metrics with intervals, and conditions on a model.

`layout` says what is counted and how far a privacy unit can move it; `counting` counts inside a member; `release` adds noise
and reads sums; `views` and `metrics` are post-processing, with the intervals of `intervals`, `ranking` and `calibration`;
`conditions` are judged by `judging` as pass, fail or inconclusive; `power` says beforehand what can be decided.
Nothing here imports torch, scikit-learn or pandas.
"""
