"""The body model: arrays, linear blend skinning, loaders."""
