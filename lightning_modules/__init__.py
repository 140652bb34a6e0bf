"""Training of embedding models from clicks with Lightning: losses, pairs, data, module, callbacks, `fit`."""
