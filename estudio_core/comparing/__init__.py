"""Experiments: two releases answer the same searches, and what users click says which of them is better.

`teams` mixes two rankings, `answering` searches with both, `credit` reads clicks, `sequence` judges them at any moment,
`standing` says where an experiment stands, `ledger` keeps it. MLflow's experiments are in `estudio_core.experiments`.
"""
