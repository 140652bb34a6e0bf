"""Search spaces to start from, one module per kind of model: values to choose from, by parameter name.

They are never changed: `{**INITIAL_PARAMS, "margin": [0.1]}` is a space of one's own, and so is what a class with ten
methods assigns to `self.initial_params`.
"""
