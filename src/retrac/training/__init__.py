"""Training that can be replayed: the ledger, the loop, checkpoints and the run folder."""
