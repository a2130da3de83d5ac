"""The gate: whether a file may be published, recomputed by whoever has the noisy sums and the federation's log.

`record` reads what a log shows of a run; `deciding` judges the agreement's conditions on it and writes the log's entry;
`approving` is what a member checks before it signs. All of it is pure, and the same at members, coordinator and readers.
"""
