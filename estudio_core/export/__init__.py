"""From a trained model to a verified entry of the Triton model repository."""
