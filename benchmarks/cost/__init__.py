"""What attribution costs beside training, and what other ways of computing it cost.

`python -m benchmarks.cost` measures every row of the table on every network, each in a process of
its own, where it alternates with a plain training step (forward and backward of the mean loss over
a batch): all costs are ratios to that step.

- `networks.py`: what is measured on; `workload.py`: what every row is given.
- `rows.py`: the rows that there are. `ours.py`, `baselines.py` and `peers.py` add theirs: a new row
  is one new function.
- `measure.py`, `memory.py`: time and memory of one row; `report.py`, `plot.py`: what is shown.
"""
