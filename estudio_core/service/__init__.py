"""The HTTP service: search, collection of clicks, writes of items, and a search page. `estudio serve` runs it.

Routes translate and nothing else: what is found comes from `searching`, what is written goes through `writing`, what
users did through `clickstream`. Start with `endpoints`, the one table of everything that it answers.
"""
