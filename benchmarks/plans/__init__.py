"""Which query plan is worth its cost: accuracy against draws, for both methods.

1. `python -m benchmarks.plans measure RUN --tables FOLDER` fills the tables of some queries
   (`tables.py`), one file each; what is there is not computed again.
2. `python -m benchmarks.plans compare --tables FOLDER` puts the scores of many plans together from
   them (`candidates.py`), compares each plan's ranking of the training samples with that of the
   published plan under other noises (`compare.py`), and draws the curve (`plot.py`).
3. `python -m benchmarks.plans check RUN` holds the named plans against the published one as they
   are used, on other queries and all training samples (`check.py`).
"""
